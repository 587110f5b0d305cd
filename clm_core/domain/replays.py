"""Replays: a stretch of the past under the rules of continuous learning, day by day."""

import hashlib
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from clm_core.domain.kinds import Kind, PluginName
from clm_core.domain.spellings import SymbolName, TimeframeName
from clm_core.domain.vocabulary import ModelType

MIN_DAYS = 7


class ReplayRequest(BaseModel):
    """Stretch of the past to replay, and the rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: ModelType
    plugin: PluginName | None = None
    symbol: SymbolName
    timeframe: TimeframeName = "1h"
    start: date
    """First day, in UTC: the first training takes the bars closed by its midnight."""
    end: date
    """Day after the last, in UTC."""
    policy: str | None = None
    """Preset or file (.toml) of the gate's policy; None: the policy of the installation."""
    compare: tuple[str, ...] = ()
    """Presets or files of further policies, replayed beside with the same trainings."""
    every_days: float | None = Field(default=None, gt=0)
    """Days between two scheduled retrains; None: as often as the kind of model is retrained."""
    dataset_span_days: int | None = Field(default=None, gt=0)
    """Days of bars of a training; None: as for a retrain of the timeframe."""
    training_params: dict[str, Any] = {}
    seed: int = Field(default=0, ge=0)

    @property
    def kind(self) -> Kind:
        return Kind(self.model_type, self.plugin)

    @property
    def days(self) -> int:
        return (self.end - self.start).days

    @property
    def policies(self) -> tuple[str | None, ...]:
        """All policies, the policy of the request first."""
        return tuple(dict.fromkeys((self.policy, *self.compare)))

    @model_validator(mode="after")
    def _some_days(self) -> Self:
        if self.days < MIN_DAYS:
            raise ValueError(f"a replay takes {MIN_DAYS} days or more: {self.start} to {self.end}")
        return self


class ReplayEventKind(StrEnum):
    RETRAIN = "retrain"
    SHADOW = "shadow"
    PRODUCTION = "production"
    REQUEST = "request"
    PROBLEM = "problem"


class ReplayEvent(BaseModel):
    """Event of a replay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    """Time in the replay."""
    kind: ReplayEventKind
    version: str
    """Label of the version; empty for a request, and for a model halted."""
    sentence: str


class ReplayFigures(BaseModel):
    """Performance over the days of the replay, after costs; None where not measurable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    total_return: float
    sharpe_ratio: float | None
    max_drawdown: float
    """Negative fraction."""
    trades: int
    exposure: float
    """Mean absolute exposure, as a fraction of equity."""


class ReplayCurve(BaseModel):
    """A way to trade the days of the replay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    meaning: str
    figures: ReplayFigures
    lead: tuple[float, float] | None = None
    """Sharpe ratio of the production of the policy minus the Sharpe ratio of the curve: 95 % interval."""
    equity: tuple[float, ...] = Field(default=(), repr=False)
    """Equity at the close of each UTC day, as a multiple of the start."""


class PolicyReplay(BaseModel):
    """Course of the replay under a policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    events: tuple[ReplayEvent, ...]
    curves: tuple[ReplayCurve, ...]
    """Production of the policy first, then the curves to compare with."""
    retrains: int
    passed: int
    """Number of versions that passed the gate."""
    promotions: int
    rollbacks: int
    """Number of rollbacks and halts."""
    days_in_production: float
    """Days on which a version was in production."""
    trials: int
    """Backtests counted as trials."""

    @property
    def production(self) -> ReplayCurve:
        return self.curves[0]

    @property
    def digest(self) -> str:
        """SHA-256 over events, curves and counts, hexadecimal: equal for equal replays."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class ReplayResult(BaseModel):
    """A replay under one policy or several."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: ReplayRequest
    days: tuple[datetime, ...] = Field(default=(), repr=False)
    """Close of each UTC day, the times of the equities."""
    policies: tuple[PolicyReplay, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all policies, hexadecimal."""
        return hashlib.sha256("".join(each.digest for each in self.policies).encode()).hexdigest()
