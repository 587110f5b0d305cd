"""Events: recorded in the transaction of the change, delivered later, without waiting for receivers."""

import uuid
from datetime import datetime

from sqlalchemy import Connection, insert, select

from clm_core.domain.events import AuditAnchored, Event, EventType, Happening, MarketRegimeChanged
from clm_core.ledger import commit_signals
from clm_core.ledger.tables import Base, OutboxRow

_OUTBOX = Base.metadata.tables[OutboxRow.__tablename__]


def record(connection: Connection, kind: EventType, payload: Happening, at: datetime) -> None:
    """Record an event in the caller's transaction.

    Call late in the transaction: until the end, other transactions that record an alert or an event wait.
    """
    event = Event(id=uuid.uuid4(), type=kind, at=at, payload=payload)
    row = event.model_dump(exclude={"payload"}) | {"payload": payload.model_dump(mode="json")}
    connection.execute(insert(_OUTBOX), row)
    commit_signals.signal(connection)


def is_announced(connection: Connection, anchor: AuditAnchored) -> bool:
    """True if the newest event about an anchor is about the same entry."""
    newest = (
        select(_OUTBOX.c.payload["hash"].astext)
        .where(_OUTBOX.c.type == EventType.AUDIT_ANCHORED)
        .order_by(_OUTBOX.c.seq.desc())
        .limit(1)
    )
    return bool(connection.scalar(newest) == anchor.hash)


def is_regime_known(connection: Connection, change: MarketRegimeChanged) -> bool:
    """True if the newest event about the regime of a version is about the same change."""
    payload = _OUTBOX.c.payload
    newest = (
        select(payload)
        .where(
            _OUTBOX.c.type == EventType.MARKET_REGIME_CHANGED,
            payload["model_id"].astext == change.model_id,
            payload["version"].astext == change.version,
        )
        .order_by(_OUTBOX.c.seq.desc())
        .limit(1)
    )
    return bool(connection.scalar(newest) == change.model_dump(mode="json"))
