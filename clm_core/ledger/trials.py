"""The trial ledger: nothing is judged that was not counted, and nothing counted is ever taken back.

A retrain's trial is counted before anybody reads what came of it. A tuning reads on the way, to give up
early: its trial is begun first, and counts from then on as one of which nothing is known, whatever is killed.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Engine, LargeBinary, and_, literal, select, union_all
from sqlalchemy.dialects.postgresql import insert as insert_once

from clm_core.domain.jobs import Lease
from clm_core.domain.trials import Trial
from clm_core.domain.vocabulary import ModelStatus
from clm_core.evidence.trials import TrialRecord
from clm_core.ledger import leases
from clm_core.ledger.tables import Base, BegunTrialRow, EvaluationRow, TrialRow, VersionRow

_TRIALS, _BEGUN, _EVALUATIONS, _VERSIONS = (
    Base.metadata.tables[row.__tablename__] for row in (TrialRow, BegunTrialRow, EvaluationRow, VersionRow)
)
_RECORD = tuple(_TRIALS.c[name] for name in ("sharpe", "effective_bars", "first_day", "daily_returns"))
STORED = np.dtype("<f4")
"""Of a day's return: seven digits are plenty for a correlation."""


class TrialStore:
    """Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, trial_id: UUID, symbol: str, timeframe: str, first_day: int, now: datetime) -> None:
        """From now on it counts, under this id once.

        Args:
            first_day: days since 1970-01-01 UTC of the first bar it is tested on.
        """
        row = {"id": trial_id, "symbol": symbol, "timeframe": timeframe, "first_day": first_day, "at": now}
        with self._engine.begin() as connection:
            connection.execute(insert_once(_BEGUN).values(row).on_conflict_do_nothing())

    def count(self, trial: Trial, record: TrialRecord, lease: Lease | None = None) -> Trial:
        """Record a trial, under its id once; of a job in progress only who holds its lease does.

        Raises:
            LeaseLost: the lease is no longer the job's.
        """
        row = trial.model_dump() | {
            "first_day": record.first_day,
            "daily_returns": record.daily.astype(STORED).tobytes(),
        }
        with self._engine.begin() as connection:
            if trial.job_id is not None:
                leases.require(connection, trial.job_id, lease)
            connection.execute(insert_once(_TRIALS).values(row).on_conflict_do_nothing())
        return trial

    def records(self, symbol: str, timeframe: str, until: datetime | None = None) -> list[TrialRecord]:
        """What was tried for a market and timeframe, oldest first; what was only begun without its returns.

        Args:
            until: leave out what was tried later: the count as it stood then.
        """
        of_market = [
            [table.c.symbol == symbol, table.c.timeframe == timeframe]
            + ([] if until is None else [table.c.at <= until])
            for table in (_TRIALS, _BEGUN)
        ]
        counted = select(*_RECORD, _TRIALS.c.at, _TRIALS.c.id).where(*of_market[0])
        unknown = literal(math.nan)
        begun = select(
            *(unknown, unknown, _BEGUN.c.first_day, literal(b"", LargeBinary), _BEGUN.c.at, _BEGUN.c.id)
        ).where(*of_market[1], ~counted.where(_TRIALS.c.id == _BEGUN.c.id).exists())
        with self._engine.begin() as connection:
            rows = connection.execute(union_all(counted, begun).order_by("at", "id"))
            return [_record(*row[:4]) for row in rows]

    def competing(self, model_id: str) -> list[tuple[str, ModelStatus, TrialRecord]]:
        """Label, status and judged trial of a model's versions that serve, or may come to; oldest first."""
        alive = (ModelStatus.PRODUCTION, ModelStatus.CANDIDATE, ModelStatus.SHADOW)
        same = and_(*(_EVALUATIONS.c[name] == _VERSIONS.c[name] for name in ("model_id", "version")))
        query = (
            select(_VERSIONS.c.version, _VERSIONS.c.status, *_RECORD)
            .distinct(_VERSIONS.c.version)
            .join(_EVALUATIONS, same)
            .join(_TRIALS, _TRIALS.c.id == _EVALUATIONS.c.trial_id)
            .where(_VERSIONS.c.model_id == model_id, _VERSIONS.c.status.in_(alive))
            .order_by(_VERSIONS.c.version, _EVALUATIONS.c.created_at.desc(), _EVALUATIONS.c.id.desc())
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [(label, ModelStatus(status), _record(*record)) for label, status, *record in rows]

    def of_job(self, job_id: UUID) -> list[Trial]:
        """Oldest first."""
        query = select(*_TRIALS.c).where(_TRIALS.c.job_id == job_id).order_by(_TRIALS.c.at, _TRIALS.c.id)
        with self._engine.begin() as connection:
            return [_trial(row) for row in connection.execute(query).mappings()]


def _record(sharpe: float, effective_bars: float, first_day: int, stored: bytes) -> TrialRecord:
    return TrialRecord(sharpe, effective_bars, first_day, np.frombuffer(stored, STORED).astype(np.float64))


def _trial(row: Mapping[Any, Any]) -> Trial:
    return Trial.model_validate({name: row[name] for name in Trial.model_fields})
