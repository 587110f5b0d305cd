"""Entries of the audit: actor, action, subject and time of every change."""

from enum import StrEnum
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from clm_core.domain.actors import Actor

OLD_ACTIONS = {
    "drift_detected": "alias_moved",
    "drift_restored": "alias_move_restored",
    "drift_adopted": "alias_move_adopted",
}
"""Renamed actions by old value. The log is append-only: entries of earlier releases keep the old value."""


class Action(StrEnum):
    JOB_CREATED = "job_created"
    JOB_STARTED = "job_started"
    JOB_DATA_FETCHED = "job_data_fetched"
    JOB_COMPLETED = "job_completed"
    JOB_FAILED = "job_failed"
    JOB_CANCELLED = "job_cancelled"
    VERSION_REGISTERED = "version_registered"
    VERSION_JUDGED = "version_judged"
    VERSION_REJUDGED = "version_rejudged"
    """A promotion judged the stored evidence under the policy, costs and champion in force."""
    VERSION_STATUS_CHANGED = "version_status_changed"
    """Any change of status but promotions, rollbacks and retirements: their actions are listed below."""
    VERSION_RETIRED = "version_retired"
    PROMOTION_COMMITTED = "promotion_committed"
    PROMOTION_ABORTED = "promotion_aborted"
    FORCED_PROMOTION = "forced_promotion"
    FORCED_EXPIRED = "forced_expired"
    """A forced promotion has expired, its version still serves, and an admin was asked to decide."""
    FORCED_CONFIRMED = "forced_confirmed"
    """An admin prolonged a forced promotion."""
    ROLLBACK_COMMITTED = "rollback_committed"
    ALIAS_MOVED = "alias_moved"
    """The alias `production` was found at a version that no promotion had put there."""
    ALIAS_MOVE_RESTORED = "alias_move_restored"
    ALIAS_MOVE_ADOPTED = "alias_move_adopted"
    PRODUCTION_LOST = "production_lost"
    """The production version was deleted in MLflow."""
    PRODUCTION_HALTED = "production_halted"
    """No version serves, by decision of a person or of the protection."""
    HARD_STOP_SWITCHED_OFF = "hard_stop_switched_off"
    """A person switched the hard stop of a version off, until a moment."""
    PRODUCTION_RESTORED = "production_restored"
    """A production version deleted in MLflow is in production again."""
    VERSION_RESTORED = "version_restored"
    """A version deleted in MLflow was registered again, or what was deleted beside it was put back."""
    BUNDLE_REFUSED = "bundle_refused"
    """A stored bundle differs from the registered bundle."""
    ALLOCATION_STARTED = "allocation_started"
    """Candidates share the capital of a model with the production version from now on."""
    ALLOCATION_CHANGED = "allocation_changed"
    """The weights of a running allocation were recorded anew."""
    ALLOCATION_ENDED = "allocation_ended"
    TOKEN_CREATED = "token_created"
    TOKEN_REVOKED = "token_revoked"
    TUNING_STARTED = "tuning_started"
    """A study was started or continued; each command that works on a study records an entry."""
    TUNING_ENDED = "tuning_ended"
    STRATEGY_SEARCH_STARTED = "strategy_search_started"
    """A search for strategies was started or continued."""
    STRATEGY_SEARCH_ENDED = "strategy_search_ended"
    RUN_REQUESTED = "run_requested"
    """A person asked a worker for a pass or a search, by REST; the subject is the flow or the model id."""
    DELIVERY_SKIPPED = "delivery_skipped"
    """A receiver's next event or alert was given up by hand."""
    DEAD_LETTERS_FORGOTTEN = "dead_letters_forgotten"
    MARKET_COSTS_CHANGED = "market_costs_changed"
    """The costs of a market in the settings of the home were used for the first time, or have changed;
    the subject is the symbol."""
    HOME_MOVED = "home_moved"
    """The locations of the versions follow a home that was moved or copied."""
    FILES_REMOVED = "files_removed"
    """The files of a failed version were removed; the records stay."""
    HOME_RESTORED = "home_restored"
    """The home was restored from a backup: entries written after the backup are gone."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(OLD_ACTIONS[value]) if isinstance(value, str) and value in OLD_ACTIONS else None


class AuditEntry(BaseModel):
    """A change, ready to be appended to the audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    actor: Actor
    action: Action
    subject: str = Field(min_length=1)
    """The model id; for a change of a job the job id, with `model_id` in the details."""
    details: dict[str, Any] = Field(default_factory=dict)
    """Values that pydantic can write as JSON. NaN and infinity are stored as the strings "nan", "inf" and
    "-inf", whole numbers beyond 2^53 as strings of digits: JSON cannot represent either."""
