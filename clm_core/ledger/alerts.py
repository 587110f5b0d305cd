"""Alerts: recorded with what they are about, sent later by `delivery`, so that no receiver is waited for.

    with engine.begin() as connection:
        ...  # the change itself
        record(connection, Alert(kind=AlertKind.JOB_FAILED, subject=str(job.id), message=cause, at=now))

A condition that lasts (`domain.alerts.HAPPENINGS` lists what is none) is recorded once: until it has ended,
recording it again does nothing.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Select, select, update
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.alerts import HAPPENINGS, Alert, AlertKind, RaisedAlert
from clm_core.ledger.tables import AlertRow, Base, storable

_ALERTS = Base.metadata.tables[AlertRow.__tablename__]


def record(connection: Connection, alert: Alert) -> bool:
    """Record an alert in the caller's transaction; False: its condition is recorded already.

    Call it late: until the transaction ends, everybody else who records an alert or an event waits.
    """
    row = alert.model_dump() | {
        "message": storable(alert.message),
        "ended_at": alert.at if alert.kind in HAPPENINGS else None,
    }
    recorded = insert(_ALERTS).values(row).on_conflict_do_nothing().returning(_ALERTS.c.seq)
    return connection.scalar(recorded) is not None


def end(connection: Connection, kind: AlertKind, subject: str, now: datetime) -> bool:
    """The condition is over: should it come back, it is told of again. False: it was not recorded."""
    ended = (
        update(_ALERTS)
        .where(_ALERTS.c.kind == kind, _ALERTS.c.subject == subject, _ALERTS.c.ended_at.is_(None))
        .values(ended_at=now)
    )
    return connection.execute(ended).rowcount > 0


class AlertStore:
    """What was alerted. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, alert: Alert) -> bool:
        """Where there is no transaction of what it is about; False: its condition is recorded already."""
        with self._engine.begin() as connection:
            return record(connection, alert)

    def end(self, kind: AlertKind, subject: str, now: datetime) -> bool:
        with self._engine.begin() as connection:
            return end(connection, kind, subject, now)

    def lasting(self, kind: AlertKind | None = None) -> list[RaisedAlert]:
        """Conditions that have not ended, oldest first."""
        query = select(_ALERTS).where(_ALERTS.c.ended_at.is_(None)).order_by(_ALERTS.c.seq)
        if kind is not None:
            query = query.where(_ALERTS.c.kind == kind)
        return self._read(query)

    def newest(self, limit: int = 50) -> list[RaisedAlert]:
        """Newest first."""
        return self._read(select(_ALERTS).order_by(_ALERTS.c.seq.desc()).limit(limit))

    def _read(self, query: Select[Any]) -> list[RaisedAlert]:
        with self._engine.begin() as connection:
            return [RaisedAlert.model_validate(dict(row)) for row in connection.execute(query).mappings()]
