"""What is asked for: training jobs and why they were asked for."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.vocabulary import JobStatus, ModelType, TriggerReason


class RetrainRequest(BaseModel):
    """What somebody, or something, asks to have retrained; also the launch form in the Prefect UI."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: ModelType = Field(description="The kind of model to train.")
    symbol: str = Field(description="The market, as `clm data list` names it: BTCUSD.")
    timeframe: str = Field(default="1h", description="Length of a bar: 1m, 5m, 15m, 30m, 1h, 4h or 1d.")
    dataset_span_days: int = Field(
        default=365,
        gt=0,
        le=36_500,
        description="Days of bars, counted back from the newest, that the training may see.",
    )
    trigger_reason: TriggerReason = Field(default=TriggerReason.MANUAL, description="Why it is retrained.")
    training_params: dict[str, Any] = Field(
        default_factory=dict, description="Parameters that differ from the model type's defaults."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of everything random in the training.")
    requested_by: str = Field(default="unknown", min_length=1, description="Who asks.")


class TrainingJob(BaseModel):
    """One request to retrain a model, from asking to its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    model_type: ModelType
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

    @property
    def model_id(self) -> str:
        return model_id(self.model_type, self.symbol, self.timeframe)


class Lease(BaseModel):
    """The right to write about a job in progress; whoever runs the job holds and renews it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: UUID
    holder: str
    """Machine and process, for people: `trainer-3:4711`."""
    token: int
    """Every lease has a greater one than those before it; what is written with a replaced one is refused."""
    expires_at: datetime


def model_id(model_type: ModelType, symbol: str, timeframe: str) -> str:
    """The name a model is registered and served under: `xgboost_btcusdt_1h`."""
    return f"{model_type.value}_{symbol}_{timeframe}".lower()
