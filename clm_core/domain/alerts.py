"""What somebody has to hear of at once."""

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

OLD_KINDS = {"drift_detected": "alias_moved", "upkeep_failing": "maintenance_failing"}
"""Kinds renamed by ledger revision 0015, by their old value; the old values are accepted for one release."""


class AlertKind(StrEnum):
    JOB_FAILED = "job_failed"
    ALIAS_MOVED = "alias_moved"
    """The production alias was moved by hand."""
    PRODUCTION_LOST = "production_lost"
    """The serving version was deleted in MLflow: nothing serves."""
    BUNDLE_REFUSED = "bundle_refused"
    """What MLflow holds of a version is not what was registered."""
    FORCED_EXPIRED = "forced_expired"
    """A forced promotion still serves although its time is over."""
    FORCED_ROLLED_BACK = "forced_rolled_back"
    """The guard ended one, as it was told to."""
    DELIVERY_FAILING = "delivery_failing"
    """A receiver of events or alerts has not taken any for a while."""
    DELIVERY_GIVEN_UP = "delivery_given_up"
    """Something was offered to a receiver for days and not taken: it is not sent by itself any more."""
    MESSAGE_SET_ASIDE = "message_set_aside"
    """A message that came in could not be understood, or asks for what cannot be trained."""
    AUDIT_BROKEN = "audit_broken"
    """The audit is not as it was written."""
    AUTOMATION_FAILING = "automation_failing"
    """An automation of Prefect could not do what it is for: a run that it should start does not exist."""
    RUN_FAILED = "run_failed"
    """A run of a deployment failed or crashed, and no job tells why."""
    MAINTENANCE_FAILING = "maintenance_failing"
    """A step of the maintenance, a watch, a shadow pass or a data update failed."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(OLD_KINDS[value]) if isinstance(value, str) and value in OLD_KINDS else None


HAPPENINGS = frozenset(
    {
        AlertKind.JOB_FAILED,
        AlertKind.ALIAS_MOVED,
        AlertKind.FORCED_ROLLED_BACK,
        AlertKind.MESSAGE_SET_ASIDE,
    }
)
"""Each is told of. All others are conditions: told of when they begin, not again until they have ended."""


class Alert(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: AlertKind
    subject: str = Field(min_length=1)
    """Whom or what it is about: a model id, a job id, MODEL@VERSION, the name of a receiver."""
    message: str = Field(min_length=1)
    """What happened and what to do, for the person it wakes up."""
    at: datetime


class RaisedAlert(Alert):
    """An alert as it is recorded."""

    seq: int
    """Grows with time."""
    ended_at: datetime | None
    """When the condition was found to be over; a happening's own time."""
