"""Alerts: recorded in the transaction of the change, sent later by `delivery`, without waiting for receivers.

    with engine.begin() as connection:
        ...  # the change itself
        record(connection, Alert(kind=AlertKind.JOB_FAILED, subject=str(job.id), message=cause, at=now))

A condition (any kind outside `domain.alerts.HAPPENINGS`) is recorded once: until the condition has ended,
recording the alert again does nothing.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Select, select, update
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.alerts import HAPPENINGS, Alert, AlertKind, RaisedAlert
from clm_core.ledger import commit_signals
from clm_core.ledger.tables import AlertRow, Base, storable

_ALERTS = Base.metadata.tables[AlertRow.__tablename__]


def record(connection: Connection, alert: Alert) -> bool:
    """Record an alert in the caller's transaction; False if the condition is recorded already.

    Call late in the transaction: until the end, other transactions that record an alert or an event wait.
    """
    row = alert.model_dump() | {
        "message": storable(alert.message),
        "ended_at": alert.at if alert.kind in HAPPENINGS else None,
    }
    recorded = insert(_ALERTS).values(row).on_conflict_do_nothing().returning(_ALERTS.c.seq)
    is_new = connection.scalar(recorded) is not None
    if is_new:
        commit_signals.signal(connection)
    return is_new


def end(connection: Connection, kind: AlertKind, subject: str, now: datetime) -> bool:
    """Record the end of a condition, so that a recurrence is alerted; False if no such condition lasts.

    The recovery is sent as an alert is.
    """
    return end_all(connection, kind, (subject,), now) > 0


def end_all(connection: Connection, kind: AlertKind, subjects: Collection[str], now: datetime) -> int:
    """Record the end of the condition for several subjects; returns the number of conditions ended."""
    ended = (
        update(_ALERTS)
        .where(_ALERTS.c.kind == kind, _ALERTS.c.subject.in_(subjects), _ALERTS.c.ended_at.is_(None))
        .values(ended_at=now)
        .returning(_ALERTS.c.seq, _ALERTS.c.subject, _ALERTS.c.at)
    )
    alerts = sorted(connection.execute(ended).all())
    for alert in alerts:
        since = f"{alert.at:%Y-%m-%d %H:%M} UTC"
        recovery = {
            "kind": kind,
            "subject": alert.subject,
            "message": f"The condition of alert #{alert.seq}, since {since}, has ended.",
            "at": now,
            "ended_at": now,
            "recovers": alert.seq,
        }
        connection.execute(insert(_ALERTS).values(recovery))
    if alerts:
        commit_signals.signal(connection)
    return len(alerts)


class AlertStore:
    """Recorded alerts. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, alert: Alert) -> bool:
        """Record an alert in a transaction of its own; False if the condition is recorded already."""
        with self._engine.begin() as connection:
            return record(connection, alert)

    def end(self, kind: AlertKind, subject: str, now: datetime) -> bool:
        with self._engine.begin() as connection:
            return end(connection, kind, subject, now)

    def end_all(self, kind: AlertKind, subjects: Collection[str], now: datetime) -> int:
        """Record the end of the condition for several subjects; returns the number of conditions ended."""
        with self._engine.begin() as connection:
            return end_all(connection, kind, subjects, now)

    def settle(self, kind: AlertKind, subject: str, message: str | None, now: datetime) -> None:
        """Record a condition that lasts, once, or its end.

        Args:
            message: cause and remedy; None: the condition does not last.
        """
        if message is None:
            self.end(kind, subject, now)
        else:
            self.record(Alert(kind=kind, subject=subject, message=message, at=now))

    def lasting(self, kind: AlertKind | None = None) -> list[RaisedAlert]:
        """Conditions that last, oldest first."""
        query = select(_ALERTS).where(_ALERTS.c.ended_at.is_(None)).order_by(_ALERTS.c.seq)
        if kind is not None:
            query = query.where(_ALERTS.c.kind == kind)
        return self._read(query)

    def newest(
        self,
        limit: int = 50,
        *,
        kind: AlertKind | None = None,
        lasting: bool = False,
        before: int | None = None,
    ) -> list[RaisedAlert]:
        """Newest first, without the recoveries: an alert has its end.

        Args:
            kind: only alerts of this kind.
            lasting: only conditions that last.
            before: exclusive upper limit of the numbers, for the following page.
        """
        alerted = select(_ALERTS).where(_ALERTS.c.recovers.is_(None))
        if kind is not None:
            alerted = alerted.where(_ALERTS.c.kind == kind)
        if lasting:
            alerted = alerted.where(_ALERTS.c.ended_at.is_(None))
        if before is not None:
            alerted = alerted.where(_ALERTS.c.seq < before)
        return self._read(alerted.order_by(_ALERTS.c.seq.desc()).limit(limit))

    def _read(self, query: Select[Any]) -> list[RaisedAlert]:
        with self._engine.begin() as connection:
            return [RaisedAlert.model_validate(dict(row)) for row in connection.execute(query).mappings()]
