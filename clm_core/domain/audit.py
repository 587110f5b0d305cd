"""What is remembered for ever: who did what to what, and when."""

from enum import StrEnum
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from clm_core.domain.actors import Actor

OLD_ACTIONS = {
    "drift_detected": "alias_moved",
    "drift_restored": "alias_move_restored",
    "drift_adopted": "alias_move_adopted",
}
"""Renamed actions by the word of older entries. The log is append-only: older entries keep the old word."""


class Action(StrEnum):
    JOB_CREATED = "job_created"
    JOB_STARTED = "job_started"
    JOB_COMPLETED = "job_completed"
    JOB_FAILED = "job_failed"
    VERSION_REGISTERED = "version_registered"
    VERSION_JUDGED = "version_judged"
    VERSION_STATUS_CHANGED = "version_status_changed"
    """By anything but a promotion, a rollback or a retirement, which have their own words."""
    VERSION_RETIRED = "version_retired"
    PROMOTION_COMMITTED = "promotion_committed"
    PROMOTION_ABORTED = "promotion_aborted"
    FORCED_PROMOTION = "forced_promotion"
    FORCED_EXPIRED = "forced_expired"
    """A forced promotion still serves although its time is over: an admin was asked to look again."""
    FORCED_CONFIRMED = "forced_confirmed"
    """An admin lets it stand for longer."""
    ROLLBACK_COMMITTED = "rollback_committed"
    ALIAS_MOVED = "alias_moved"
    """The production alias points at a version that no promotion put there."""
    ALIAS_MOVE_RESTORED = "alias_move_restored"
    ALIAS_MOVE_ADOPTED = "alias_move_adopted"
    PRODUCTION_LOST = "production_lost"
    """The serving version was deleted in MLflow."""
    BUNDLE_REFUSED = "bundle_refused"
    """A stored bundle is not the one that was judged."""
    TOKEN_CREATED = "token_created"
    TOKEN_REVOKED = "token_revoked"
    TUNING_STARTED = "tuning_started"
    """Begun or continued: each command that works on a study has one of these."""
    TUNING_ENDED = "tuning_ended"
    DELIVERY_SKIPPED = "delivery_skipped"
    """What a receiver was to be told next was given up by hand."""
    DEAD_LETTERS_FORGOTTEN = "dead_letters_forgotten"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(OLD_ACTIONS[value]) if isinstance(value, str) and value in OLD_ACTIONS else None


class AuditEntry(BaseModel):
    """One state change, as it is handed to the audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    actor: Actor
    action: Action
    subject: str = Field(min_length=1)
    """The model id; the job id where a job is meant, with its `model_id` in the details."""
    details: dict[str, Any] = Field(default_factory=dict)
    """Whatever pydantic can write as JSON. NaN and infinity are kept as the strings "nan", "inf" and "-inf",
    whole numbers beyond 2^53 as strings of digits: JSON has no words for them."""
