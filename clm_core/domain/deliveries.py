"""Who is told of events and alerts, how far they have been told, and what was given up."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class StreamName(StrEnum):
    """What a receiver is told, in order."""

    EVENTS = "events"
    ALERTS = "alerts"


class ReceiverState(BaseModel):
    """How a receiver stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    stream: StreamName
    position: int
    """Number of the last that it took, or that was given up."""
    waiting: int
    """Recorded, and not yet taken."""
    given_up: int
    """Dead letters that wait for somebody to decide."""
    failures: int
    """In a row, of the one it is to take next."""
    failing_since: datetime | None
    retry_at: datetime | None
    """Not before then; None: at once."""
    last_error: str | None


class DeadLetter(BaseModel):
    """What a receiver did not take for days, or was to skip: it is not sent by itself any more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    receiver: str
    seq: int
    """Its number among the events, or among the alerts."""
    about: str
    """The type of the event with what it is about, or the kind of the alert with its subject."""
    happened_at: datetime
    attempts: int
    error: str
    """What the receiver said last, or who had it skipped."""
    given_up_at: datetime
    retry_asked: bool
    """Somebody wants it sent once more: the next delivery does so."""
