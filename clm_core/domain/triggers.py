"""Requests to retrain, the answers of the intake, and incoming messages."""

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
    """A job was created for the request."""
    COALESCED = "coalesced"
    """Another job serves this request as well."""
    REJECTED = "rejected"


class Observation(BaseModel):
    """Measurements in favour of a retrain; None: not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sharpe_ratio: float | None = None
    """Annualised, of the production version since the promotion."""
    alarm: bool | None = None
    """True if a sequential test with a declared rate of false alarms found the degradation."""
    new_samples: int | None = Field(default=None, ge=0)
    """Bars after the training data of the production version."""
    age_days: float | None = Field(default=None, ge=0)
    """Days since the training of the production version."""
    drift_score: float | None = None
    """Score of the drift, in the unit of the detector."""
    drifted: tuple[str, ...] = Field(default=(), max_length=200)
    """Drifted features; `prediction` and `forecast errors` for those of the version."""
    regime: Line | None = None
    """Regime of the market now, another than at the end of the training."""
    regime_since: AwareDatetime | None = None
    """Time of the market's newest change of regime."""


class TriggerRequest(BaseModel):
    """A request to retrain a model, by a person or a program."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: RetrainRequest
    """The requested training; `requested_by` is recorded without verification."""
    actor: Actor
    """Authenticated requester."""
    source: Line
    """Channel of the request: terminal, api, deployment/NAME, webhook/NAME."""
    key: str | None = Field(default=None, min_length=1, max_length=500)
    """Deduplication key: requests for a model with equal keys count as the same request at any time. None: no
    deduplication."""
    observed: Observation = Observation()
    replace_pending: bool = False
    """True to cancel the pending jobs of the model if the request is accepted."""
    recipe_from: str | None = None
    """See `TrainingJob`."""
    candidate_id: UUID | None = None
    """See `TrainingJob`."""


@dataclass(frozen=True)
class TrainedBefore:
    """A version trained from the same bars, parameters, seed and code as a request asks for."""

    version: str
    """Label of the version."""
    job_id: UUID
    """Job that trained the version."""


@dataclass(frozen=True)
class History:
    """State of a model's jobs and earlier requests at the time of a request."""

    running: UUID | None
    """The model's job in progress."""
    pending: UUID | None
    """The model's pending job; the oldest of several."""
    last_accepted: Mapping[TriggerReason, datetime]
    """Time of the last accepted request for the model, by reason."""
    accepted: Mapping[TriggerReason, int]
    """Requests accepted for the model in the last 24 hours, by reason."""
    accepted_in_all: int
    """Requests accepted for any model in the last 24 hours."""
    same_key: UUID | None
    """Job that serves an earlier request for the model with the same key."""
    same_training: UUID | None = None
    """The model's pending job that would train the same: equal data, parameters and seed."""
    trained: TrainedBefore | None = None
    """Version that the requested training would yield again."""
    overtakes: bool = False
    """True for the request of a run that would start now, while the pending jobs have no run."""
    unpromoted: int = 0
    """Jobs of the model that ended since the training of the production version, none of them promoted; 0
    without a production version."""


@dataclass(frozen=True)
class TriggerDecision:
    reply: Reply
    because: str
    """Reason in words, for people."""
    job_id: UUID | None = None
    """Existing job that serves the request; None unless coalesced."""
    waits_for: UUID | None = None
    """Job of the same model after whose end the new job starts; None: at once."""


class Answer(BaseModel):
    """A recorded request and the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    """Grows with every request; serves as the position in a paged list."""
    model_id: str
    request: TriggerRequest
    at: AwareDatetime
    reply: Reply
    because: str
    """Reason in words."""
    job_id: UUID | None
    """Job that serves the request, new or coalesced; None if the request was rejected."""
    waits_for: UUID | None
    """Job of the same model in progress or pending at the time; an accepted job starts after its end."""

    @property
    def sentence(self) -> str:
        """`coalesced with job 6f…: it waits to be started already`."""
        job = {Reply.ACCEPTED: f" as job {self.job_id}", Reply.COALESCED: f" with job {self.job_id}"}
        return f"{self.reply}{job.get(self.reply, '')}: {self.because}"


class MessageDelivery(StrEnum):
    NEW = "new"
    KNOWN = "known"
    """The message was received before, and is ignored."""
    IGNORED = "ignored"
    """The message requests nothing here, as a `push` of GitHub, and is not stored."""


class Receipt(BaseModel):
    """The inbox's answer to the sender of a message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delivery: MessageDelivery
    source: str
    message_id: str
    received_at: AwareDatetime
    """Time of the first receipt."""


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
    """Time at which the message was answered or set aside; None: waiting."""
    error: str | None
    """Reason for setting the message aside; None otherwise."""
