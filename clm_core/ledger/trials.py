"""The trial ledger: only counted trials are judged, and counted trials are never deleted.

A retrain's trial is counted before the result is read. A tuning reads intermediate results for pruning:
its trial is recorded as begun first, and from then on counts as a trial with unknown returns, even if the
process is killed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Engine,
    LargeBinary,
    Table,
    and_,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert as insert_once

from clm_core.domain.jobs import Lease
from clm_core.domain.promotions import PromotionState
from clm_core.domain.trials import Trial, TrialSource
from clm_core.domain.vocabulary import JobStatus, ModelStatus
from clm_core.ledger import leases
from clm_core.ledger.tables import (
    Base,
    BegunTrialRow,
    EvaluationRow,
    JobRow,
    PromotionRow,
    TrialRow,
    VersionRow,
)

if TYPE_CHECKING:
    from clm_core.evidence.trials import TrialRecord

_TRIALS, _BEGUN, _EVALUATIONS, _VERSIONS, _JOBS, _PROMOTIONS = (
    Base.metadata.tables[row.__tablename__]
    for row in (TrialRow, BegunTrialRow, EvaluationRow, VersionRow, JobRow, PromotionRow)
)
_COUNTED = _TRIALS.alias()
_RECORD = tuple(_TRIALS.c[name] for name in ("sharpe", "effective_bars", "first_day", "daily_returns"))
STORED = "<f4"
"""Type of a stored daily return: seven digits suffice for a correlation."""


@dataclass(frozen=True)
class LookedAt:
    """A market and timeframe with trials."""

    symbol: str
    timeframe: str
    trials: int
    """Number of trials, begun ones included."""
    newest: datetime
    """Time of the newest trial."""


@dataclass(frozen=True)
class JudgedRetrain:
    """A judged version with the trial of the judgement and the job of the training."""

    version: str
    trained_at: datetime
    job_id: UUID
    duration: timedelta
    """Time from the start to the end of the job."""
    was_promoted: bool
    """True if the version was ever in production."""
    side_bps: float
    """Fee and slippage of the judgement, on each side of a trade."""
    record: "TrialRecord"


class TrialStore:
    """Counted and begun trials. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, trial_id: UUID, symbol: str, timeframe: str, first_day: int, now: datetime) -> None:
        """Record the beginning of a trial; a repetition with the same id changes nothing.

        Args:
            first_day: days since 1970-01-01 UTC of the first test bar.
        """
        row = {"id": trial_id, "symbol": symbol, "timeframe": timeframe, "first_day": first_day, "at": now}
        with self._engine.begin() as connection:
            connection.execute(insert_once(_BEGUN).values(row).on_conflict_do_nothing())

    def count(self, trial: Trial, record: "TrialRecord", lease: Lease | None = None) -> Trial:
        """Count a trial; a repetition with the same id changes nothing.

        Raises:
            LeaseLost: the lease of the job was taken over, or the job has ended.
        """
        row = trial.model_dump() | {
            "first_day": record.first_day,
            "daily_returns": record.daily.astype(STORED).tobytes(),
        }
        with self._engine.begin() as connection:
            if trial.job_id is not None:
                leases.require(connection, trial.job_id, lease)
            connection.execute(insert_once(_TRIALS).on_conflict_do_nothing(), row)
        return trial

    def records(
        self,
        symbol: str,
        timeframe: str,
        until: datetime | None = None,
        members: Sequence[str] = (),
        matched: Sequence[tuple[str, str]] = (),
    ) -> "list[TrialRecord]":
        """Trials for a market and timeframe, oldest first; trials merely begun have no returns.

        Args:
            symbol: the market, or the name of a pool.
            until: latest time of a trial, to reproduce the count at the time.
            members: symbols of the pool: trials of their markets count as well, unless a job of the pool made
                them, whose portfolio counts already.
            matched: symbol and timeframe of other series of the same market, whose trials count as well,
                under the same exception.
        """
        pairs = [*((name, timeframe) for name in members), *matched]
        of_market = [
            [
                or_(
                    and_(table.c.symbol == symbol, table.c.timeframe == timeframe),
                    _of_others(table, symbol, pairs),
                )
            ]
            + ([] if until is None else [table.c.at <= until])
            for table in (_TRIALS, _BEGUN)
        ]
        finished = [_COUNTED.c.id == _BEGUN.c.id] + ([] if until is None else [_COUNTED.c.at <= until])
        counted = select(*_RECORD, _TRIALS.c.at, _TRIALS.c.id).where(*of_market[0])
        unknown = literal(math.nan)
        begun = select(
            *(unknown, unknown, _BEGUN.c.first_day, literal(b"", LargeBinary), _BEGUN.c.at, _BEGUN.c.id)
        ).where(*of_market[1], ~select(_COUNTED.c.id).where(*finished).exists())
        with self._engine.begin() as connection:
            rows = connection.execute(union_all(counted, begun).order_by("at", "id"))
            return [_record(*row[:4]) for row in rows]

    def markets(self, until: datetime | None = None) -> list[LookedAt]:
        """Every market and timeframe with trials, by name.

        Args:
            until: latest time of a trial.
        """
        looks = [
            select(table.c.symbol, table.c.timeframe, table.c.at, table.c.id).where(
                *([] if until is None else [table.c.at <= until])
            )
            for table in (_TRIALS, _BEGUN)
        ]
        every = union_all(*looks).subquery()
        number = func.count(every.c.id.distinct())
        newest = func.max(every.c.at)
        query = (
            select(every.c.symbol, every.c.timeframe, number, newest)
            .group_by(every.c.symbol, every.c.timeframe)
            .order_by(every.c.symbol, every.c.timeframe)
        )
        with self._engine.begin() as connection:
            return [LookedAt(*row) for row in connection.execute(query)]

    def competing(self, model_id: str) -> "list[tuple[str, ModelStatus, TrialRecord]]":
        """Label, status and judged trial of a model's production, candidate and shadow versions,
        oldest first."""
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

    def newest_judged(self, model_id: str, limit: int) -> list[JudgedRetrain]:
        """Newest versions of a model with a verdict from completed jobs, newest first."""
        same = and_(*(_EVALUATIONS.c[name] == _VERSIONS.c[name] for name in ("model_id", "version")))
        ever_promoted = exists().where(
            _PROMOTIONS.c.model_id == _VERSIONS.c.model_id,
            _PROMOTIONS.c.to_version == _VERSIONS.c.version,
            _PROMOTIONS.c.state == PromotionState.COMMITTED,
        )
        names = ("version", "created_at", "training_job_id")
        query = (
            select(
                *(_VERSIONS.c[name] for name in names),
                (_JOBS.c.finished_at - _JOBS.c.started_at).label("duration"),
                ever_promoted.label("was_promoted"),
                (_EVALUATIONS.c.fee_bps + _EVALUATIONS.c.slippage_bps).label("side_bps"),
                *_RECORD,
            )
            .distinct(_VERSIONS.c.created_at, _VERSIONS.c.version)
            .join(_EVALUATIONS, same)
            .join(_TRIALS, _TRIALS.c.id == _EVALUATIONS.c.trial_id)
            .join(_JOBS, _JOBS.c.id == _VERSIONS.c.training_job_id)
            .where(_VERSIONS.c.model_id == model_id, _JOBS.c.status == JobStatus.COMPLETED)
            .order_by(
                _VERSIONS.c.created_at.desc(),
                _VERSIONS.c.version.desc(),
                _EVALUATIONS.c.created_at.desc(),
                _EVALUATIONS.c.id.desc(),
            )
            .limit(limit)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [
            JudgedRetrain(label, at, job_id, duration, promoted, side, _record(*record))
            for label, at, job_id, duration, promoted, side, *record in rows
        ]

    def of_searches(self, model_id: str, until: datetime | None = None) -> "list[tuple[Trial, TrialRecord]]":
        """Trials of a model made by tunings and evolutions, oldest first.

        Args:
            until: latest time of a trial; None for all.
        """
        names = [*Trial.model_fields, "first_day", "daily_returns"]
        conditions = [_TRIALS.c.model_id == model_id, _TRIALS.c.source != TrialSource.RETRAIN]
        if until is not None:
            conditions.append(_TRIALS.c.at <= until)
        query = (
            select(*(_TRIALS.c[name] for name in names))
            .where(*conditions)
            .order_by(_TRIALS.c.at, _TRIALS.c.id)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return [(_trial(row), _record(*(row[column.name] for column in _RECORD))) for row in rows]

    def of_job(self, job_id: UUID) -> list[Trial]:
        """Trials of a job, oldest first."""
        query = select(*_TRIALS.c).where(_TRIALS.c.job_id == job_id).order_by(_TRIALS.c.at, _TRIALS.c.id)
        with self._engine.begin() as connection:
            return [_trial(row) for row in connection.execute(query).mappings()]


def _of_others(table: Table, pool: str, pairs: Sequence[tuple[str, str]]) -> ColumnElement[bool]:
    """Condition for trials of other series, except trials of members by a job of the pool, counted by the
    portfolio."""
    if not pairs:
        return false()
    named = tuple_(table.c.symbol, table.c.timeframe).in_(pairs)
    if table is not _TRIALS:
        return named
    of_pool = select(_COUNTED.c.job_id).where(_COUNTED.c.symbol == pool, _COUNTED.c.job_id == table.c.job_id)
    return and_(named, or_(table.c.symbol == pool, ~of_pool.exists()))


def _record(sharpe: float, effective_bars: float, first_day: int, stored: bytes) -> "TrialRecord":
    import numpy as np

    from clm_core.evidence.trials import TrialRecord

    return TrialRecord(sharpe, effective_bars, first_day, np.frombuffer(stored, STORED).astype(np.float64))


def _trial(row: Mapping[Any, Any]) -> Trial:
    return Trial.model_validate({name: row[name] for name in Trial.model_fields})
