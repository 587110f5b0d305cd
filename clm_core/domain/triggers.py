"""Requests to retrain, as they come to the door, and what they are answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from clm_core.domain.actors import Actor
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.vocabulary import TriggerReason

Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A short text without line breaks and other control characters."""


class Reply(StrEnum):
    ACCEPTED = "accepted"
    """A job of its own was created."""
    COALESCED = "coalesced"
    """Another job serves this request as well."""
    REJECTED = "rejected"


class Observation(BaseModel):
    """What was measured that speaks for retraining; None: not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sharpe_ratio: float | None = None
    """Annualised, of the version that serves, since it serves."""
    new_samples: int | None = Field(default=None, ge=0)
    """Bars that the version that serves has not been trained on."""
    age_days: float | None = Field(default=None, ge=0)
    """How long ago the version that serves was trained, in days."""


class TriggerRequest(BaseModel):
    """Somebody, or something, asks to have a model retrained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: RetrainRequest
    """What is to be trained, and why; its `requested_by` is recorded as said."""
    actor: Actor
    """Who asks, as authenticated."""
    source: Line
    """The way it came: terminal, api, deployment/NAME, webhook/NAME."""
    key: str | None = Field(default=None, min_length=1, max_length=500)
    """Requests for a model with the same key are one, whenever they come; None: like no other."""
    observed: Observation = Observation()


@dataclass(frozen=True)
class History:
    """What the door knows about a model when a request for it comes."""

    running: UUID | None
    """Its job in progress."""
    pending: UUID | None
    """Its job that waits to be started."""
    last_accepted: Mapping[TriggerReason, datetime]
    """When a request of that reason was last accepted for the model."""
    accepted: Mapping[TriggerReason, int]
    """Requests accepted for the model in the last 24 hours."""
    accepted_in_all: int
    """Requests accepted for any model in the last 24 hours."""
    same_key: UUID | None
    """The job that serves an earlier request for the model with the same key."""


@dataclass(frozen=True)
class TriggerDecision:
    reply: Reply
    because: str
    """The reason in words, for people."""
    job_id: UUID | None = None
    """The job that serves the request instead of one of its own; None unless coalesced."""


class Answer(BaseModel):
    """A request and what it was answered, as recorded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    """Grows with every request; page through them by it."""
    model_id: str
    request: TriggerRequest
    at: AwareDatetime
    reply: Reply
    because: str
    """The reason in words."""
    job_id: UUID | None
    """The job that serves the request: its own, or the one it was coalesced with; None: rejected."""
    waits_for: UUID | None
    """The job of the same model that was in progress, and has to end before an accepted one starts."""

    @property
    def sentence(self) -> str:
        """`coalesced with job 6f…: it waits to be started already`."""
        job = {Reply.ACCEPTED: f" as job {self.job_id}", Reply.COALESCED: f" with job {self.job_id}"}
        return f"{self.reply}{job.get(self.reply, '')}: {self.because}"


class MessageDelivery(StrEnum):
    NEW = "new"
    KNOWN = "known"
    """The message was received before, and nothing more comes of it."""


class Receipt(BaseModel):
    """What the inbox says to who delivers a message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delivery: MessageDelivery
    source: str
    message_id: str
    received_at: AwareDatetime
    """When it was first received."""


class Message(BaseModel):
    """A message in the inbox."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    """Grows with every message."""
    source: str
    message_id: str
    body: bytes = Field(repr=False)
    received_at: AwareDatetime
    processed_at: AwareDatetime | None
    """When it was answered or set aside; None: it waits to be drained."""
    error: str | None
    """Why it was set aside; None: it was not."""
