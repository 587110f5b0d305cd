"""Definitions of hyper-parameter studies."""

from datetime import datetime

from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.actors import Actor
from clm_core.domain.errors import NotFound
from clm_core.domain.searches import Tuning
from clm_core.domain.tuning import TuneResult
from clm_core.ledger import audit_records
from clm_core.ledger.definitions import require_unchanged
from clm_core.ledger.tables import Base, TuningRow

_TUNINGS = Base.metadata.tables[TuningRow.__tablename__]
SUGGESTED = 5
"""Number of studies suggested if a study is not found."""


class TuningStore:
    """Definitions of studies. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def open(self, tuning: Tuning, trials: int, by: Actor, now: datetime) -> Tuning:
        """Record the start or the continuation of a study; returns the definition at the start.

        Raises:
            StudyDiffers: the study of the same name started with other inputs.
        """
        row = {
            "name": tuning.name,
            "model_id": tuning.model_id,
            "definition": tuning.model_dump(mode="json"),
            "created_at": tuning.created_at,
        }
        with self._engine.begin() as connection:
            new = insert(_TUNINGS).values(row).on_conflict_do_nothing().returning(_TUNINGS.c.name)
            continued = connection.scalar(new) is None
            began = _tuning(connection, tuning.name)
            require_unchanged("study", began.name, "trials", began.changes(tuning))
            audit_records.tuning_started(connection, began, trials, continued, by, now)
        return began

    def end(self, tuning: Tuning, result: TuneResult, now: datetime) -> None:
        """Record a command's result, and the reason for stopping."""
        with self._engine.begin() as connection:
            audit_records.tuning_ended(connection, tuning, result, now)

    def find(self, name: str) -> Tuning:
        """
        Raises:
            NotFound: the study does not exist; the message names the newest studies.
        """
        with self._engine.begin() as connection:
            return _tuning(connection, name)

    def exists(self, name: str) -> bool:
        with self._engine.begin() as connection:
            return connection.scalar(select(_TUNINGS.c.name).where(_TUNINGS.c.name == name)) is not None


def _tuning(connection: Connection, name: str) -> Tuning:
    definition = connection.scalar(select(_TUNINGS.c.definition).where(_TUNINGS.c.name == name))
    if definition is None:
        newest = select(_TUNINGS.c.name).order_by(_TUNINGS.c.created_at.desc()).limit(SUGGESTED)
        names = ", ".join(connection.scalars(newest))
        advice = f"the newest are {names}" if names else "`clm tune` creates the first"
        raise NotFound(f"There is no study {name}; {advice}.")
    return Tuning.model_validate(definition)
