"""How far each receiver of events or alerts has been told, and that one at a time tells it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Engine, Table, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.alerts import RaisedAlert
from clm_core.ledger.tables import AlertRow, Base, OutboxRow, ReceiverRow, storable

_OUTBOX, _ALERTS, _RECEIVERS = (
    Base.metadata.tables[row.__tablename__] for row in (OutboxRow, AlertRow, ReceiverRow)
)
FIRST_HEARS_OF = timedelta(days=1)
"""A new receiver is told what happened this long before it was first seen."""
FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(minutes=15)


class Numbered(Protocol):
    @property
    def seq(self) -> int: ...


T = TypeVar("T", bound=Numbered)


class OutgoingEvent(BaseModel):
    """A row of the outbox, whatever its payload."""

    model_config = ConfigDict(frozen=True)

    seq: int
    id: UUID
    type: str
    at: datetime
    payload: dict[str, Any]


@dataclass(frozen=True)
class Stream(Generic[T]):
    """What is told, in the order of its numbers."""

    table: Table
    read: Callable[[Mapping[Any, Any]], T]


EVENTS = Stream(_OUTBOX, lambda row: OutgoingEvent.model_validate(dict(row)))
ALERTS = Stream(_ALERTS, lambda row: RaisedAlert.model_validate(dict(row)))


class ReceiverState(BaseModel):
    """How a receiver stands."""

    model_config = ConfigDict(frozen=True)

    position: int
    failures: int
    failing_since: datetime | None
    retry_at: datetime | None
    last_error: str | None


@dataclass(frozen=True)
class Turn(Generic[T]):
    """Ours to tell a receiver its next; dies with our connection."""

    name: str
    next: T | None
    """None: it has heard everything."""
    failures: int
    failing_since: datetime | None
    connection: Connection

    def took(self, told: T) -> None:
        healthy = {"failures": 0, "failing_since": None, "retry_at": None, "last_error": None}
        self._set(position=told.seq, **healthy)

    def failed(self, error: str, now: datetime) -> None:
        """Each failure in a row doubles the wait for the next attempt."""
        wait = min(FIRST_WAIT * 2 ** min(self.failures, 20), LONGEST_WAIT)
        self._set(
            failures=self.failures + 1,
            failing_since=self.failing_since or now,
            retry_at=now + wait,
            last_error=storable(error),
        )

    def _set(self, **values: Any) -> None:
        self.connection.execute(update(_RECEIVERS).where(_RECEIVERS.c.name == self.name).values(values))


class ReceiverBook:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextlib.contextmanager
    def turn(self, name: str, stream: Stream[T], now: datetime) -> Iterator[Turn[T] | None]:
        """Tell one receiver one thing; what the turn records holds once the block ends.

        Yields:
            None when somebody else is telling it something, or its next attempt is not due yet.
        """
        self._know(name, stream, now)
        due = or_(_RECEIVERS.c.retry_at.is_(None), _RECEIVERS.c.retry_at <= now)
        mine = select(_RECEIVERS).where(_RECEIVERS.c.name == name, due).with_for_update(skip_locked=True)
        with self._engine.begin() as connection:
            found = connection.execute(mine).one_or_none()
            if found is None:
                yield None
                return
            after = _after(stream, found.position).limit(1)
            row = connection.execute(after).mappings().one_or_none()
            following = None if row is None else stream.read(row)
            yield Turn(name, following, found.failures, found.failing_since, connection)

    def state(self, name: str) -> ReceiverState:
        with self._engine.begin() as connection:
            found = connection.execute(select(_RECEIVERS).where(_RECEIVERS.c.name == name))
            return ReceiverState.model_validate(dict(found.mappings().one()))

    def waiting(self, stream: Stream[T], position: int) -> int:
        """How much comes after a position."""
        later = select(func.count()).select_from(_after(stream, position).subquery())
        with self._engine.begin() as connection:
            return connection.scalar(later) or 0

    def following(self, stream: Stream[T], position: int, limit: int) -> list[T]:
        """What comes after a position, oldest first; for those who remember theirs by themselves."""
        with self._engine.begin() as connection:
            rows = connection.execute(_after(stream, position).limit(limit)).mappings()
            return [stream.read(row) for row in rows]

    def newest(self, stream: Stream[T]) -> int:
        """The position of who has heard everything."""
        with self._engine.begin() as connection:
            return connection.scalar(select(func.max(stream.table.c.seq))) or 0

    def _know(self, name: str, stream: Stream[T], now: datetime) -> None:
        older = select(func.coalesce(func.max(stream.table.c.seq), 0)).where(
            stream.table.c.at < now - FIRST_HEARS_OF
        )
        row = {"name": name, "position": older.scalar_subquery(), "failures": 0}
        with self._engine.begin() as connection:
            connection.execute(insert(_RECEIVERS).values(row).on_conflict_do_nothing())


def _after(stream: Stream[T], position: int) -> Any:
    return select(stream.table).where(stream.table.c.seq > position).order_by(stream.table.c.seq)
