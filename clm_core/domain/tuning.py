"""Tuning: the request and the result."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.kinds import OfModel, PluginName
from clm_core.domain.searches import HeldOutSharpe, Sampler, SearchRequest
from clm_core.domain.vocabulary import ModelType


class TuneRequest(SearchRequest):
    """Request to tune a model."""

    trials: int = Field(
        default=50,
        ge=1,
        le=10_000,
        description="Number of trials (sets of parameters), the trials of a continued study included.",
    )
    study: str | None = Field(
        default=None,
        pattern=r"^[\w.-]{1,100}$",
        description="Name of the study; an existing study is continued. Empty: a new study.",
    )
    sampler: Sampler = Field(
        default=Sampler.TPE,
        description="Choice of the next parameters: tpe, or gp (Gaussian process) where a trial takes "
        "seconds or more.",
    )
    timeout_minutes: float | None = Field(
        default=None,
        gt=0,
        title="Time limit (minutes)",
        description="The tuning stops after this time and can be continued. Empty: no limit.",
    )


class StopReason(StrEnum):
    """Reason why a command stopped working on its study."""

    ALL_TRIALS = "all_trials"
    """Every requested trial has ended."""
    TIME_LIMIT = "time_limit"
    INTERRUPTED = "interrupted"
    """Ctrl-C."""


class TrialState(StrEnum):
    COMPLETE = "complete"
    PRUNED = "pruned"
    """Stopped after some folds: most other trials did better by the same fold."""
    DEGENERATE = "degenerate"
    """Not ranked: flat or on one side nearly always, or too few trades."""
    FAILED = "failed"


class TrialResult(BaseModel):
    """A set of parameters and its out-of-sample results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=0)
    """Number in the study; 0 for the defaults."""
    state: TrialState
    params: dict[str, Any]
    """Fixed and searched parameters; all other parameters have their defaults."""
    sharpe_ratio: float | None
    """Annualised Sharpe ratio after costs over the completed folds, mean of all seeds; None if unknown."""
    sharpe_interval: IntervalEstimate | None = None
    """The ratio with the interval of 95 %; None if not measured, or measured by an earlier release."""
    trades: int | None
    """Number of trades, mean of all seeds."""
    seed_sharpes: tuple[float, ...] = ()
    """Sharpe ratio with each seed; empty if not measured, or measured by an earlier release."""
    cause: str | None = None
    """Error of a failed trial, or the reason against ranking a degenerate trial."""


class StudySoFar(OfModel):
    """A study with the results so far, under way or ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    model_type: ModelType
    plugin: PluginName | None
    symbol: str
    timeframe: str
    requested: int
    """Number of trials requested at the start."""
    requested_by: str
    created_at: datetime
    trials: tuple[TrialResult, ...]
    """Ended trials, by number."""
    best: TrialResult | None
    """The best completed trial, if any; its parameters are those for a retrain."""


class TuneResult(OfModel):
    """Results of a study so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    model_type: ModelType
    plugin: PluginName | None
    symbol: str
    timeframe: str
    dataset_span_days: int
    ended: StopReason
    trials: tuple[TrialResult, ...]
    """Ended trials, by number."""
    best: TrialResult | None
    """The best completed trial, if any."""
    unseen: HeldOutSharpe | None
    """Results on the held-out bars; None without held-out bars, or before all trials have ended."""
    report: Path | None = None

    @property
    def defaults(self) -> TrialResult | None:
        """The trial of the default parameters."""
        return next((trial for trial in self.trials if trial.number == 0), None)

    def count(self, state: TrialState) -> int:
        return sum(trial.state is state for trial in self.trials)
