"""Alerts: messages for the person on call."""

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

OLD_KINDS = {"drift_detected": "alias_moved", "upkeep_failing": "maintenance_failing"}
"""Kinds renamed by ledger revision 0015, by old value; the old values are accepted for one release."""


class AlertKind(StrEnum):
    JOB_FAILED = "job_failed"
    TRAINING_SLOW = "training_slow"
    """A job is in progress for longer than the settings allow without a word."""
    PROMOTED = "promoted"
    """The product promoted a version by itself, after a shadow or as a refresh of the champion's recipe."""
    LOW_SCORE = "low_score"
    """A version with a promotion score below 50 has earned a promotion."""
    APPROVAL_WAITS = "approval_waits"
    """A promotion earned in shadow waits for the approval of a person."""
    ALIAS_MOVED = "alias_moved"
    """The alias `production` was moved by hand."""
    PRODUCTION_LOST = "production_lost"
    """The production version was deleted in MLflow: no version serves."""
    MODEL_HALTED = "model_halted"
    """No version of the model serves, by decision of a person or of the protection."""
    PROTECTION_FROZEN = "protection_frozen"
    """The protection of a model changes nothing any more without a person."""
    PROTECTION_ROLLED_BACK = "protection_rolled_back"
    """The protection took a version out of production and put the version before back."""
    ROLLBACK_TARGET_UNUSABLE = "rollback_target_unusable"
    """The version that a rollback would put back cannot serve."""
    SPLIT_DIFFERS = "split_differs"
    """The bars traded by the arms of an allocation differ from the weights."""
    BUNDLE_REFUSED = "bundle_refused"
    """The files of a version in MLflow differ from the registered files."""
    FORCED_EXPIRED = "forced_expired"
    """A forced promotion has expired, and its version still serves."""
    FORCED_ROLLED_BACK = "forced_rolled_back"
    """The maintenance rolled an expired forced promotion back, as configured."""
    DELIVERY_FAILING = "delivery_failing"
    """A receiver of events or alerts has accepted nothing for a while."""
    DELIVERY_GIVEN_UP = "delivery_given_up"
    """A receiver refused an event or alert for days, until it became a dead letter."""
    MESSAGE_SET_ASIDE = "message_set_aside"
    """An incoming message is malformed, or requests an impossible training."""
    AUDIT_BROKEN = "audit_broken"
    """Entries of the audit were changed or removed."""
    ANCHORS_NOT_SHIPPED = "anchors_not_shipped"
    """Anchors of the audit cannot be copied to a place of the settings."""
    AUTOMATION_FAILING = "automation_failing"
    """An action of a Prefect automation failed: a run that the automation should start does not exist."""
    RUN_FAILED = "run_failed"
    """A run of a deployment failed or crashed before any job could record the cause."""
    MAINTENANCE_FAILING = "maintenance_failing"
    """A step of the maintenance, a watch, a shadow pass or a data update failed."""
    DEGRADED = "degraded"
    """The sequential test of a production version's returns has raised its alarm."""
    DRIFTED = "drifted"
    """Features, predictions or forecast errors of a production version have drifted beyond the limits."""
    STALE_BARS = "stale_bars"
    """The newest bars of a market with a production version are missing."""
    PASS_OVERDUE = "pass_overdue"
    """A scheduled pass has not succeeded for several of its intervals."""
    SETTINGS_REFUSED = "settings_refused"
    """Settings or policy cannot be loaded: no run that starts now can work."""
    LEDGER_UNREACHABLE = "ledger_unreachable"
    """PostgreSQL does not answer; sent directly, since nothing can be recorded."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(OLD_KINDS[value]) if isinstance(value, str) and value in OLD_KINDS else None


HAPPENINGS = frozenset(
    {
        AlertKind.JOB_FAILED,
        AlertKind.ALIAS_MOVED,
        AlertKind.FORCED_ROLLED_BACK,
        AlertKind.PROMOTED,
        AlertKind.LOW_SCORE,
        AlertKind.PROTECTION_ROLLED_BACK,
        AlertKind.MESSAGE_SET_ASIDE,
    }
)
"""Kinds alerted at each occurrence. All other kinds are conditions: alerted when the condition begins, and
again only after the condition has ended."""
INFORMATION = frozenset({AlertKind.LOW_SCORE, AlertKind.APPROVAL_WAITS, AlertKind.DRIFTED})
"""Kinds that nobody has to act on at once: receivers that page a person get none of them."""


class Alert(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: AlertKind
    subject: str = Field(min_length=1)
    """Subject of the alert: a model id, a job id, MODEL@VERSION, the name of a receiver."""
    message: str = Field(min_length=1)
    """Cause and remedy, for the person on call."""
    at: datetime


class RaisedAlert(Alert):
    """A recorded alert."""

    seq: int
    """Grows with time."""
    ended_at: datetime | None
    """End of the condition; for an occurrence, the time of the alert."""
    recovers: int | None = None
    """Number of the alert whose condition has ended; None for an alert. A recovery tells of the end."""

    @property
    def condition(self) -> str:
        """Key of the condition, the same for alert and recovery; each occurrence has another."""
        occurrence = f"/{self.seq}" if self.kind in HAPPENINGS else ""
        return f"clm/{self.kind}/{self.subject}{occurrence}"
