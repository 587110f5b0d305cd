"""What is asked of a tuning, and what comes of it."""

from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.jobs import TIMEFRAMES
from clm_core.domain.kinds import OfModel, PluginName
from clm_core.domain.vocabulary import ModelType


class Engine(StrEnum):
    """Where trials are computed."""

    LOCAL = "local"
    """In processes of this machine."""
    RAY = "ray"
    """On the machines of a Ray cluster."""


def _own_after_the_span(schema: dict[str, Any]) -> None:
    """In the form, what only one kind of search is asked stands after model, market and span."""
    every, shared = schema["properties"], list(SearchRequest.model_fields)
    own = [name for name in every if name not in shared]
    place = shared.index("dataset_span_days") + 1
    for position, name in enumerate([*shared[:place], *own, *shared[place:]]):
        every[name]["position"] = position


class SearchRequest(OfModel):
    """For which model parameters are searched, and on what."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_own_after_the_span)

    model_type: ModelType = Field(
        title="Model type", description="The kind of model to search parameters for."
    )
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
        description="Days of bars, counted back from the newest.",
    )
    holdout: float = Field(
        default=0.2,
        ge=0,
        le=0.5,
        title="Held out",
        description="Share of the bars, the newest, that the search does not see; the best parameters and "
        "the defaults are tried on them once, at the end. 0: none.",
    )
    training_params: dict[str, Any] = Field(
        default_factory=dict,
        title="Fixed parameters",
        description='Training parameters that are not searched, as JSON: {"horizon": 24}.',
    )
    seed: int = Field(default=0, ge=0, description="Of the search, and of everything random in a training.")
    seeds: int | None = Field(
        default=None,
        ge=1,
        le=20,
        title="Seeds",
        description="How often each set of parameters is tried, each time with another seed. Empty: as often "
        "as a retrain of this kind is walked forward.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Sets of parameters computed at the same time. Empty: one a processor.",
    )
    requested_by: str = Field(default="unknown", title="Asked by", description="Your name, for the record.")


class TuneRequest(SearchRequest):
    """Which model to tune, on what, and for how long."""

    trials: int = Field(
        default=50,
        ge=1,
        le=10_000,
        description="Sets of parameters to try, those of a continued study included.",
    )
    study: str | None = Field(
        default=None,
        pattern=r"^[\w.-]{1,100}$",
        description="Name of the study; one that exists is continued. Empty: a new one.",
    )
    timeout_minutes: float | None = Field(
        default=None,
        gt=0,
        title="Time limit (minutes)",
        description="After that it stops, to be continued. Empty: none.",
    )
    on: Engine = Field(default=Engine.LOCAL, description="Where the trials are computed.")
    ray_address: str | None = Field(
        default=None,
        title="Address of Ray",
        description="Of the cluster, as host:6379. Empty: RAY_ADDRESS, or else one on this machine.",
    )


class Ended(StrEnum):
    """Why a command stopped working on its study."""

    ALL_TRIALS = "all_trials"
    """Every trial that was asked for has ended."""
    TIME_LIMIT = "time_limit"
    INTERRUPTED = "interrupted"
    """By Ctrl-C."""


class TrialState(StrEnum):
    COMPLETE = "complete"
    PRUNED = "pruned"
    """Given up after some folds: most others had done better by then."""
    FAILED = "failed"


class Tried(BaseModel):
    """One set of parameters, and what came of it out of sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=0)
    """0: the defaults."""
    state: TrialState
    params: dict[str, Any]
    """Those fixed and those tried; all others have their defaults."""
    sharpe_ratio: float | None
    """Annualised, after costs, the mean of all seeds; over the folds it had when it was pruned; None: it was
    not measured."""
    trades: int | None
    """The mean of all seeds."""
    seed_sharpes: tuple[float, ...] = ()
    """Sharpe ratio with each seed; empty where nothing was measured, or an earlier release did."""
    cause: str | None = None
    """Why it failed."""


class Unseen(BaseModel):
    """Annualised Sharpe ratios on the bars that the search has not seen, each the mean of all seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bars: int
    best: float | None
    """None, as with the next: it could not be measured."""
    defaults: float | None


class TuneResult(OfModel):
    """What a study has found so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    model_type: ModelType
    plugin: PluginName | None
    symbol: str
    timeframe: str
    dataset_span_days: int
    ended: Ended
    trials: tuple[Tried, ...]
    """All that have ended, in order."""
    best: Tried | None
    """None: none was completed."""
    unseen: Unseen | None
    """None: nothing is held out, or not all trials have ended."""
    report: Path | None = None

    @property
    def defaults(self) -> Tried | None:
        return next((tried for tried in self.trials if tried.number == 0), None)

    def count(self, state: TrialState) -> int:
        return sum(tried.state is state for tried in self.trials)
