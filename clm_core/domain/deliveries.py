"""Delivery of events and alerts: the state of each receiver, and dead letters."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class StreamName(StrEnum):
    """A sequence delivered in order."""

    EVENTS = "events"
    ALERTS = "alerts"


class ReceiverState(BaseModel):
    """Progress and failures of a receiver."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    stream: StreamName
    position: int
    """Number of the last event or alert that was accepted or became a dead letter."""
    waiting: int
    """Number of events or alerts after the position."""
    given_up: int
    """Number of dead letters awaiting a decision."""
    failures: int
    """Consecutive failures to deliver the next event or alert."""
    failing_since: datetime | None
    retry_at: datetime | None
    """Earliest time of the next attempt; None: at once."""
    last_error: str | None


class DeadLetter(BaseModel):
    """An event or alert that a receiver refused for days, or that was skipped: no longer sent by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    receiver: str
    seq: int
    """Number in the stream of events or alerts."""
    about: str
    """Type of the event and its model, or kind of the alert and its subject."""
    happened_at: datetime
    attempts: int
    error: str
    """Last error of the receiver, or the person who skipped the delivery."""
    given_up_at: datetime
    retry_asked: bool
    """True if the next delivery is to send the dead letter once more."""
