"""Versions whose hard stop a person switched off, each until a moment."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine, insert, select

from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action
from clm_core.domain.versions import ModelVersion
from clm_core.ledger import audit_records
from clm_core.ledger.tables import Base, HardStopExemptionRow

_EXEMPTIONS = Base.metadata.tables[HardStopExemptionRow.__tablename__]


class ExemptionStore:
    """Exemptions from the hard stop; the newest of a version counts. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(
        self, version: ModelVersion, until: datetime, actor: Actor, reason: str, now: datetime
    ) -> None:
        """Record that the hard stop of a version is off until a moment; a moment not after `now` switches the
        hard stop on again."""
        details = {"version": version.version, "until": until, "reason": reason}
        row = {"model_id": version.model_id, "actor": actor.name, "at": now} | details
        with self._engine.begin() as connection:
            connection.execute(insert(_EXEMPTIONS).values(row))
            action = Action.HARD_STOP_SWITCHED_OFF
            audit_records.record(connection, action, version.model_id, now, details, actor)

    def until(self, version: ModelVersion, before: Sequence[str] = ()) -> datetime | None:
        """Moment until which the hard stop of a version is off; None for a version never exempted.

        Args:
            before: labels of versions replaced by refreshes up to this version; exemptions of these hold on.
        """
        newest = (
            select(_EXEMPTIONS.c.until)
            .where(
                _EXEMPTIONS.c.model_id == version.model_id,
                _EXEMPTIONS.c.version.in_([version.version, *before]),
            )
            .order_by(_EXEMPTIONS.c.number.desc())
            .limit(1)
        )
        with self._engine.begin() as connection:
            until: datetime | None = connection.scalar(newest)
        return until
