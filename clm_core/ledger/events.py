"""Events: recorded with what they tell of, delivered later, so that no receiver is waited for."""

import uuid
from datetime import datetime

from sqlalchemy import Connection, insert

from clm_core.domain.events import Event, EventType, Happening
from clm_core.ledger.tables import Base, OutboxRow

_OUTBOX = Base.metadata.tables[OutboxRow.__tablename__]


def record(connection: Connection, kind: EventType, what: Happening, at: datetime) -> None:
    """Record what happened in the caller's transaction.

    Call it late: until the transaction ends, everybody else who records something waits.
    """
    event = Event(id=uuid.uuid4(), type=kind, at=at, payload=what)
    row = event.model_dump(exclude={"payload"}) | {"payload": what.model_dump(mode="json")}
    connection.execute(insert(_OUTBOX).values(row))
