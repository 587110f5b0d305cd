"""Delivery of events and alerts: position and failures of each receiver, and dead letters."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Engine, Table, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.actors import Actor
from clm_core.domain.alerts import RaisedAlert
from clm_core.domain.audit import Action
from clm_core.domain.deliveries import DeadLetter, ReceiverState, StreamName
from clm_core.domain.errors import NotFound
from clm_core.domain.published_events import PublishedEvent
from clm_core.ledger import audit_records
from clm_core.ledger.tables import AlertRow, Base, DeadLetterRow, OutboxRow, ReceiverRow, storable

_OUTBOX, _ALERTS, _RECEIVERS, _DEAD = (
    Base.metadata.tables[row.__tablename__] for row in (OutboxRow, AlertRow, ReceiverRow, DeadLetterRow)
)
FIRST_LOOKBACK = timedelta(days=1)
"""Age of the oldest event or alert sent to a new receiver."""
FIRST_WAIT = timedelta(seconds=10)
MAX_WAIT = timedelta(minutes=15)
GIVEN_UP_AFTER = timedelta(days=3)
"""Minimum age of a dead letter, which has also failed at least `MIN_ATTEMPTS` times."""
MIN_ATTEMPTS = 5
_HEALTHY = {"failures": 0, "failing_since": None, "retry_at": None, "last_error": None}


class Numbered(Protocol):
    """An event or alert with a number and a time."""

    @property
    def seq(self) -> int: ...

    @property
    def at(self) -> datetime: ...


T = TypeVar("T", bound=Numbered)


class OutgoingEvent(BaseModel):
    """A row of the outbox with an unparsed payload."""

    model_config = ConfigDict(frozen=True)

    seq: int
    id: UUID
    type: str
    at: datetime
    payload: dict[str, Any]

    @property
    def subject(self) -> str | None:
        """Model the event concerns, if any."""
        return self.payload["model_id"] if "model_id" in self.payload else None  # noqa: SIM401

    @property
    def published(self) -> PublishedEvent:
        """The event as subscribers receive it."""
        return PublishedEvent(id=self.id, seq=self.seq, type=self.type, timestamp=self.at, data=self.payload)


@dataclass(frozen=True)
class Stream(Generic[T]):
    """A sequence of events or alerts in the order of their numbers."""

    name: StreamName
    table: Table
    read: Callable[[Mapping[Any, Any]], T]
    about: Callable[[T], str]
    """Short description of an event or alert."""


EVENTS = Stream(
    StreamName.EVENTS,
    _OUTBOX,
    lambda row: OutgoingEvent.model_validate(dict(row)),
    lambda event: " ".join([event.type, *([event.subject] if event.subject else [])]),
)
ALERTS = Stream(
    StreamName.ALERTS,
    _ALERTS,
    lambda row: RaisedAlert.model_validate(dict(row)),
    lambda alert: f"{'recovered: ' if alert.recovers else ''}{alert.kind} {alert.subject}",
)
_STREAMS: dict[StreamName, Stream[Any]] = {stream.name: stream for stream in (EVENTS, ALERTS)}


@dataclass(frozen=True)
class Turn(Generic[T]):
    """Exclusive right to deliver a receiver's next event or alert, lost with the database connection."""

    name: str
    stream: Stream[T]
    next: T
    failures: int
    failing_since: datetime | None
    connection: Connection

    def accepted(self) -> None:
        self._set(position=self.next.seq, **_HEALTHY)

    def failed(self, error: str, now: datetime) -> bool:
        """Record a failure and the time of the next attempt, after a wait doubled at each failure.

        Returns:
            True if the event or alert became a dead letter instead, so that the next may be delivered.
        """
        attempts = self.failures + 1
        failing: dict[str, Any] = {
            "failing_since": self.failing_since or now,
            "last_error": storable(error),
        }
        if now - self.next.at >= GIVEN_UP_AFTER and attempts >= MIN_ATTEMPTS:
            _give_up(self.connection, self.name, self.stream, self.next, attempts, error, now)
            self._set(position=self.next.seq, failures=0, retry_at=None, **failing)
            return True
        wait = min(FIRST_WAIT * 2 ** min(self.failures, 20), MAX_WAIT)
        self._set(failures=attempts, retry_at=now + wait, **failing)
        return False

    def _set(self, **values: Any) -> None:
        _set(self.connection, self.name, **values)


@dataclass(frozen=True)
class Retry(Generic[T]):
    """Exclusive right to send a dead letter once more, lost with the database connection."""

    letter: DeadLetter
    message: T
    connection: Connection

    def accepted(self) -> None:
        self.connection.execute(delete(_DEAD).where(*_this(self.letter)))

    def failed(self, error: str, now: datetime) -> None:
        again = {"attempts": self.letter.attempts + 1, "error": storable(error), "given_up_at": now}
        self.connection.execute(update(_DEAD).where(*_this(self.letter)).values(retry_asked=False, **again))


class ReceiverStore:
    """Receivers of events and alerts. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextlib.contextmanager
    def turn(self, name: str, stream: Stream[T], now: datetime) -> Iterator[Turn[T] | None]:
        """Deliver a receiver's next event or alert; the outcome is committed at the end of the block.

        Yields:
            The turn; None if the receiver is up to date, another process delivers to the receiver, or the
            next attempt is not due yet.
        """
        self._know(name, stream, now)
        # a wait set before the clock was put back would last by the step longer
        implausible = _RECEIVERS.c.retry_at > now + 2 * MAX_WAIT
        due = or_(_RECEIVERS.c.retry_at.is_(None), _RECEIVERS.c.retry_at <= now, implausible)
        locked = select(_RECEIVERS).where(_RECEIVERS.c.name == name, due).with_for_update(skip_locked=True)
        with self._engine.begin() as connection:
            row = connection.execute(locked).one_or_none()
            following = None if row is None else _next(connection, stream, row.position)
            if row is None or following is None:
                yield None
            else:
                yield Turn(name, stream, following, row.failures, row.failing_since, connection)

    @contextlib.contextmanager
    def retry(self, name: str, stream: Stream[T]) -> Iterator[Retry[T] | None]:
        """Send a receiver's oldest dead letter with a requested retry once more.

        Yields:
            The retry; None without a requested retry, or if another process sends the dead letter.
        """
        requested = _dead(_DEAD.c.receiver == name, _DEAD.c.retry_asked).limit(1)
        with self._engine.begin() as connection:
            row = connection.execute(requested.with_for_update(skip_locked=True)).mappings().one_or_none()
            if row is None:
                yield None
                return
            letter = DeadLetter.model_validate(dict(row))
            message = _next(connection, stream, letter.seq - 1)
            assert message is not None  # events and alerts are never deleted
            yield Retry(letter, message, connection)

    def state(self, name: str) -> ReceiverState:
        with self._engine.begin() as connection:
            row = connection.execute(select(_RECEIVERS).where(_RECEIVERS.c.name == name)).mappings().one()
            return _state(connection, row)

    def states(self) -> list[ReceiverState]:
        """States of all receivers, former receivers included, by name."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(_RECEIVERS).order_by(_RECEIVERS.c.name)).mappings().all()
            return [_state(connection, row) for row in rows]

    def named(self, part: str) -> str:
        """Name of the only receiver that contains the given part.

        Raises:
            NotFound: no receiver matches, or several receivers match.
        """
        names = [state.name for state in self.states()]
        matching = [part] if part in names else [name for name in names if part in name]
        if len(matching) != 1:
            known = ", ".join(names) or "none"
            raise NotFound(f"{part!r} matches {len(matching)} receivers; known receivers: {known}.")
        return matching[0]

    def dead(self, limit: int = 100) -> list[DeadLetter]:
        """Dead letters, oldest first."""
        with self._engine.begin() as connection:
            rows = connection.execute(_dead().limit(limit)).mappings().all()
            return [DeadLetter.model_validate(dict(row)) for row in rows]

    def ask_retry(self, name: str) -> int:
        """Request a retry of a receiver's dead letters at the next delivery; returns their number."""
        with self._engine.begin() as connection:
            requested = update(_DEAD).where(_DEAD.c.receiver == name).values(retry_asked=True)
            return connection.execute(requested).rowcount

    def skip(self, name: str, reason: str, actor: Actor, now: datetime) -> DeadLetter:
        """Turn a receiver's next event or alert into a dead letter at once.

        Raises:
            NotFound: the receiver is up to date.
        """
        locked = select(_RECEIVERS).where(_RECEIVERS.c.name == name).with_for_update()
        with self._engine.begin() as connection:
            row = connection.execute(locked).one()
            stream = _STREAMS[StreamName(row.stream)]
            following = _next(connection, stream, row.position)
            if following is None:
                raise NotFound(f"{name} is up to date: there is nothing to skip.")
            error = f"skipped by {actor.name}: {reason}"
            letter = _give_up(connection, name, stream, following, row.failures, error, now)
            _set(connection, name, position=following.seq, **_HEALTHY)
            details = {"seq": letter.seq, "about": letter.about, "reason": reason}
            audit_records.record(connection, Action.DELIVERY_SKIPPED, name, now, details, actor)
        return letter

    def forget(self, name: str, actor: Actor, now: datetime) -> int:
        """Delete a receiver's dead letters; returns their number."""
        with self._engine.begin() as connection:
            deleted = delete(_DEAD).where(_DEAD.c.receiver == name).returning(_DEAD.c.seq)
            numbers = sorted(connection.scalars(deleted))
            if numbers:
                action = Action.DEAD_LETTERS_FORGOTTEN
                audit_records.record(connection, action, name, now, {"seq": numbers}, actor)
        return len(numbers)

    def following(self, stream: Stream[T], position: int, limit: int) -> list[T]:
        """Events or alerts after a position, oldest first; for readers that keep their own position."""
        with self._engine.begin() as connection:
            rows = connection.execute(_after(stream, position).limit(limit)).mappings()
            return [stream.read(row) for row in rows]

    def newest(self, stream: Stream[T]) -> int:
        """Position after the newest event or alert; 0 for an empty stream."""
        with self._engine.begin() as connection:
            return connection.scalar(select(func.max(stream.table.c.seq))) or 0

    def _know(self, name: str, stream: Stream[T], now: datetime) -> None:
        older = select(func.coalesce(func.max(stream.table.c.seq), 0)).where(
            stream.table.c.at < now - FIRST_LOOKBACK
        )
        row = {"name": name, "stream": stream.name, "position": older.scalar_subquery(), "failures": 0}
        with self._engine.begin() as connection:
            connection.execute(insert(_RECEIVERS).values(row).on_conflict_do_nothing())


def _after(stream: Stream[T], position: int) -> Any:
    return select(stream.table).where(stream.table.c.seq > position).order_by(stream.table.c.seq)


def _next(connection: Connection, stream: Stream[T], position: int) -> T | None:
    row = connection.execute(_after(stream, position).limit(1)).mappings().one_or_none()
    return None if row is None else stream.read(row)


def _dead(*which: Any) -> Any:
    return select(_DEAD).where(*which).order_by(_DEAD.c.given_up_at, _DEAD.c.receiver, _DEAD.c.seq)


def _this(letter: DeadLetter) -> tuple[Any, Any]:
    return _DEAD.c.receiver == letter.receiver, _DEAD.c.seq == letter.seq


def _set(connection: Connection, name: str, **values: Any) -> None:
    connection.execute(update(_RECEIVERS).where(_RECEIVERS.c.name == name).values(values))


def _give_up(
    connection: Connection, name: str, stream: Stream[T], message: T, attempts: int, error: str, now: datetime
) -> DeadLetter:
    letter = DeadLetter(
        receiver=name,
        seq=message.seq,
        about=stream.about(message),
        happened_at=message.at,
        attempts=attempts,
        error=storable(error),
        given_up_at=now,
        retry_asked=False,
    )
    connection.execute(insert(_DEAD).values(letter.model_dump()))
    return letter


def _state(connection: Connection, row: Mapping[Any, Any]) -> ReceiverState:
    later = _after(_STREAMS[StreamName(row["stream"])], row["position"]).subquery()
    dead = select(func.count()).select_from(_DEAD).where(_DEAD.c.receiver == row["name"])
    waiting = connection.scalar(select(func.count()).select_from(later))
    return ReceiverState.model_validate(dict(row) | {"waiting": waiting, "given_up": connection.scalar(dead)})
