"""What is asked for: training jobs and why they were asked for."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.kinds import OfModel, PluginName
from clm_core.domain.vocabulary import JobStatus, ModelType, TriggerReason

TIMEFRAMES = ("1m", "5m", "15m", "30m", "1h", "4h", "1d")
"""Offered in the launch form; the market data know them as `Timeframe`."""


def in_order(schema: dict[str, Any]) -> None:
    """The launch form sorts fields by position; PostgreSQL's JSON keeps no order of its own."""
    for position, field in enumerate(schema["properties"].values()):
        field["position"] = position


class RetrainRequest(OfModel):
    """Which model to retrain, on what, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=in_order)

    model_type: ModelType = Field(title="Model type", description="The kind of model to train.")
    plugin: PluginName | None = Field(
        default=None,
        title="Plug-in",
        description="For the type other: which plug-in, as clm models list-types names it. Otherwise empty.",
    )
    symbol: str = Field(description="The market, as clm data list names it: BTCUSD.")
    timeframe: str = Field(
        default="1h", description="Length of a bar.", json_schema_extra={"enum": list(TIMEFRAMES)}
    )
    dataset_span_days: int = Field(
        default=365,
        gt=0,
        le=36_500,
        title="Span of the data (days)",
        description="Days of bars, counted back from the newest, that the training may see.",
    )
    trigger_reason: TriggerReason = Field(
        default=TriggerReason.MANUAL, title="Reason", description="Why it is retrained."
    )
    training_params: dict[str, Any] = Field(
        default_factory=dict,
        title="Training parameters",
        description='Those that differ from the model type\'s defaults, as JSON: {"max_depth": 5}. '
        "One that is unknown or out of range is refused, with the valid ones named.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything random in the training.")
    requested_by: str = Field(default="unknown", title="Asked by", description="Your name, for the record.")


class TrainingJob(OfModel):
    """One request to retrain a model, from asking to its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    model_type: ModelType
    plugin: PluginName | None = None
    """Name of the plug-in; None unless the type is OTHER."""
    symbol: str
    timeframe: str
    dataset_span_days: int = Field(gt=0)
    """How many days of bars, counted back from the newest, the training may see."""
    data_snapshot: str
    """Content hash of the series as it stood when the job was opened; its bars can be read back by it."""
    trigger_reason: TriggerReason
    training_params: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    requested_by: str = Field(min_length=1)
    status: JobStatus = JobStatus.PENDING
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    failure_cause: str | None = None
    """The error that ended the job; None unless it failed."""


class Lease(BaseModel):
    """The right to write about a job in progress; whoever runs the job holds and renews it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: UUID
    holder: str
    """Machine and process, for people: `trainer-3:4711`."""
    token: int
    """Every lease has a greater one than those before it; what is written with a replaced one is refused."""
    expires_at: datetime
