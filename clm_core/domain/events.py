"""Events: changes of jobs, versions and candidates, published after they are committed."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from clm_core.domain.allocations import AllocationState, ArmWeight
from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.evaluations import Decision
from clm_core.domain.vocabulary import ModelType, TriggerReason

MODEL_RESOURCE = "clm.model."
"""Beginning of the resource of a model's events in Prefect."""


class EventType(StrEnum):
    TRAINING_JOB_CREATED = "clm.training_job_created"
    MODEL_TRAINED = "clm.model_trained"
    MODEL_EVALUATED = "clm.model_evaluated"
    MODEL_PROMOTED = "clm.model_promoted"
    MODEL_ROLLBACK = "clm.model_rollback"
    MODEL_HALTED = "clm.model_halted"
    ALLOCATION_CHANGED = "clm.allocation_changed"
    STRATEGY_CANDIDATE_CREATED = "clm.strategy_candidate_created"
    AUDIT_ANCHORED = "clm.audit_anchored"
    MARKET_REGIME_CHANGED = "market.regime_changed"
    """Named as the event of other monitors, which a receiver may have a rule for already."""


class TrainingJobCreated(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: UUID
    model_id: str
    model_type: ModelType
    plugin: str | None
    symbol: str
    timeframe: str
    trigger_reason: TriggerReason
    requested_by: str


class ModelTrained(BaseModel):
    """A version was registered; the gate has not judged the version yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: UUID
    model_id: str
    version: str
    parent_version: str | None
    model_path: str
    bundle_digest: str


class ModelEvaluated(BaseModel):
    """Measured results of a version and the gate's decision; NaN and infinity are sent as "nan", "inf" and
    "-inf"."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    evaluation_id: UUID
    model_id: str
    version: str
    bundle_digest: str
    decision: Decision
    reasons: tuple[str, ...]
    promotion_score: float
    sharpe_ratio: float
    win_rate: float
    profit_factor: float
    max_drawdown: float
    trades: int


class ProductionChanged(BaseModel):
    """The new production version, with everything that a trader needs to load and to verify the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promotion_id: int
    """Grows with every change of a model, so that a receiver can ignore an event that arrives late."""
    model_id: str
    version: str
    previous_version: str | None
    model_path: str
    """MLflow URI of the version; an alias may have moved meanwhile."""
    bundle_digest: str
    actor: str
    reason: str
    forced: bool


class ProductionHalted(BaseModel):
    """A model without a production version until a promotion or rollback: traders hold no position."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promotion_id: int
    """Grows with every change of a model, so that a receiver can ignore an event that arrives late."""
    model_id: str
    previous_version: str
    """Version that was in production."""
    actor: str
    reason: str


class AllocationChanged(BaseModel):
    """An allocation was started or ended, or its weights changed: traders ask for the weights in force."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    allocation_id: int
    model_id: str
    state: AllocationState
    """`running`; after the end `production`, or `halted`."""
    arms: tuple[ArmWeight, ...]
    """Weights recorded last, the former production version first."""
    actor: str
    reason: str


class AuditAnchored(BaseModel):
    """Newest entry of the audit at a time: a receiver that keeps the anchors can prove later changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: datetime
    seq: int
    """Number of the entry."""
    hash: str
    """SHA-256 of the entry, hexadecimal."""
    count: int
    """Number of entries up to the entry."""


class MarketRegimeChanged(BaseModel):
    """Another regime of the market than at the end of the training of the production version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    symbol: str
    timeframe: str
    previous: str
    """Regime at the end of the training."""
    current: str
    since: datetime
    """End of the first day of the current regime."""


Happening = (
    TrainingJobCreated
    | ModelTrained
    | ModelEvaluated
    | ProductionChanged
    | ProductionHalted
    | AllocationChanged
    | StrategyCandidate
    | AuditAnchored
    | MarketRegimeChanged
)


class Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    """Same for every delivery of the event."""
    type: EventType
    at: datetime
    payload: Happening
