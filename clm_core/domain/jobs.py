"""Training jobs: requests to retrain a model, and their progress."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clm_core.domain.kinds import OfModel, PluginName
from clm_core.domain.pools import require_pool
from clm_core.domain.spellings import NOT_EMPTY, TIMEFRAMES, SymbolName, TimeframeName, span_by_timeframe
from clm_core.domain.vocabulary import JobStatus, ModelType, TriggerReason


def in_order(schema: dict[str, Any]) -> None:
    """Number the fields for the launch form, which sorts by position: JSON in PostgreSQL loses the order."""
    for position, field in enumerate(schema["properties"].values()):
        field["position"] = position


NOBODY = "unknown"
"""Requester of a request that names none."""
UNNAMED = ("", NOBODY)
"""Requesters that name nobody: some generated clients send the default as if their caller had typed it."""


class RetrainRequest(OfModel):
    """The model to retrain, the data and the reason."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=in_order)

    model_type: ModelType = Field(title="Model type", description="The kind of model to train.")
    plugin: PluginName | None = Field(
        default=None,
        title="Plug-in",
        description="Name of the plug-in or rule strategy for the type other, as in clm models list-types: "
        "momentum. Otherwise empty.",
    )
    symbol: str = Field(
        description="Symbol of the market, as in clm data list: BTCUSD. For a pool, the pool's name: "
        "CRYPTO3.",
        json_schema_extra=NOT_EMPTY,
    )
    symbols: tuple[SymbolName, ...] = Field(
        default=(),
        description="Symbols of a pool, at least two: one model is fitted to all of them together. Empty for "
        "a model of one market, and for a pool under [pools] in the settings.",
    )
    timeframe: TimeframeName = Field(
        default="1h", description="Length of a bar.", json_schema_extra={"enum": list(TIMEFRAMES)}
    )
    dataset_span_days: int = Field(
        default_factory=span_by_timeframe,
        gt=0,
        le=36_500,
        title="Span of the data (days)",
        description="Days of bars, counted back from the newest, that the training may see; fewer if the "
        "series is shorter. Empty: five years of hourly bars (docs/how-to/retrain.md for other lengths). The "
        "window limits the proof: by the default policy a version must show a Sharpe ratio of 4.3 out of "
        "sample to pass with 365 days, 1.9 with 1,825 days. A window too short for the kind of model to be "
        "fitted is named at the start of the run, with the days to request.",
    )
    trigger_reason: TriggerReason = Field(
        default=TriggerReason.MANUAL, title="Reason", description="Reason for the retrain."
    )
    training_params: dict[str, Any] = Field(
        default_factory=dict,
        title="Training parameters",
        description='Parameters that differ from the model type\'s defaults, as JSON: {"max_depth": 5}. '
        'Sizing and execution are sections of their own: {"sizing": {"max_turnover": 60}}. '
        "Unknown names and values out of range are refused; the error lists the valid parameters.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything random in the training.")
    requested_by: str = Field(
        default=NOBODY,
        title="Requested by",
        description="Your name, for the record; this form knows no accounts.",
    )
    again: bool = Field(
        default=False,
        title="Train again",
        description="Train also where a version was trained from the same bars, parameters, seed and code. "
        "By default such a request names the version.",
    )

    @model_validator(mode="after")
    def _pool_of_distinct_symbols(self) -> Self:
        require_pool(self.symbol, self.symbols)
        return self


class TrainingJob(OfModel):
    """A request to retrain a model, from the request to the end of the training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    model_type: ModelType
    plugin: PluginName | None = None
    """Name of the plug-in; None unless the type is OTHER."""
    symbol: str
    """Symbol of the market, or name of the pool."""
    symbols: tuple[str, ...] = ()
    """Symbols of the pool's members; empty for a model of one market."""
    timeframe: str
    dataset_span_days: int = Field(gt=0)
    """Days of bars, counted back from the newest, available to the training; of each member of a pool."""
    data_snapshot: str
    """Content hash of the series at the creation of the job; the market data read the bars back by hash. Of a
    pool, the hash over the hashes of the members' series. Empty for a market without bars, until the run has
    fetched them."""
    data_snapshots: tuple[str, ...] = ()
    """Content hash of the series of each member, in the order of `symbols`."""
    series: dict[str, str] = Field(default_factory=dict)
    """Content hashes of the own series in use at the creation of the job, by name; of a pool by member and
    name, as ETHUSDT/funding."""
    trigger_reason: TriggerReason
    training_params: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    requested_by: str = Field(min_length=1)
    recipe_from: str | None = None
    """Version whose parameters and span are repeated, or `defaults`, and why; None: as requested."""
    candidate_id: UUID | None = None
    """Strategy candidate whose parameters are trained, if known."""
    status: JobStatus = JobStatus.PENDING
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    failure_cause: str | None = None
    """Error that ended the job; None unless the job failed."""
    cancelled_by: str | None = None
    """Person who cancelled the pending job, whose status is failed then; None: not cancelled."""

    def trains_like(self, other: "TrainingJob") -> bool:
        """True if both jobs train the same model with the same parameters and seed on the same bars."""
        return all(getattr(self, name) == getattr(other, name) for name in _TRAINING_FIELDS)


_TRAINING_FIELDS = (
    "model_type",
    "plugin",
    "symbol",
    "symbols",
    "timeframe",
    "dataset_span_days",
    "data_snapshot",
    "data_snapshots",
    "series",
    "training_params",
    "seed",
)
"""Fields of a job that the trained model depends on."""


class Lease(BaseModel):
    """Exclusive right to write about a job in progress, held and renewed by the process that runs the job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: UUID
    holder: str
    """Machine and process, for people: `trainer-3:4711`."""
    token: int
    """Fencing token: grows with every lease. Writes with an outdated token are refused."""
    expires_at: datetime
    """End by the database's clock, unless the lease is renewed."""
    seconds: float
    """Length of the lease from a renewal on, which gives the time between two heartbeats."""
