"""Replays: a stretch of the past under the rules of continuous learning."""

import hashlib
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from clm_core.domain.kinds import Kind, PluginName
from clm_core.domain.spellings import SymbolName, TimeframeName
from clm_core.domain.vocabulary import KnownWorld, ModelType, PassInterval, TriggerReason

MIN_DAYS = 7
GATELESS = ("never", "newest")
"""Policies without a gate: the first version for ever, and every version promoted. Both are curves of every
replay."""
WORLD_DAYS = 840
"""Days of bars before the start of a replay in a world."""
LOOK_DAYS = 28
"""Days over which the expected return of a promotion or a rollback is counted at least."""


class ReplayRequest(BaseModel):
    """Stretch of the past to replay, and the rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: ModelType
    plugin: PluginName | None = None
    symbol: SymbolName | None = None
    """Market; None for a world."""
    world: KnownWorld | None = None
    """Made-up market with a known edge, in place of a symbol."""
    world_seed: int = Field(default=0, ge=0)
    """Seed of the bars of the world."""
    world_change: date | None = None
    """Day from which the edge of a dying or moving world is dead or reversed; None: halfway."""
    timeframe: TimeframeName = "1h"
    start: date
    """First day, in UTC: the first training takes the bars closed by its midnight."""
    end: date
    """Day after the last, in UTC."""
    policy: str | None = None
    """Preset or file (.toml) of the gate's policy; None: the policy of the installation."""
    compare: tuple[str, ...] = ()
    """Presets or files of further policies, replayed beside with the same trainings; `never` and `newest` are
    curves of every replay."""
    every_days: float | None = Field(default=None, gt=0)
    """Days between two scheduled retrains; None: as often as the kind of model is retrained."""
    passes: PassInterval = PassInterval.DAILY
    """Interval of watch and shadow."""
    dataset_span_days: int | None = Field(default=None, gt=0)
    """Days of bars of a training; None: as for a retrain of the timeframe, and in a world `WORLD_DAYS`."""
    training_params: dict[str, Any] = {}
    seed: int = Field(default=0, ge=0)

    @property
    def kind(self) -> Kind:
        return Kind(self.model_type, self.plugin)

    @property
    def market(self) -> str:
        """Symbol of the market or the world."""
        if self.symbol is not None:
            return self.symbol
        assert self.world is not None
        return self.world.symbol

    @property
    def days(self) -> int:
        return (self.end - self.start).days

    @property
    def change(self) -> date:
        """Day from which the edge of the world is dead or reversed, if it changes."""
        return self.world_change or self.start + timedelta(days=self.days // 2)

    @property
    def policies(self) -> tuple[str | None, ...]:
        """All policies with a gate, the policy of the request first."""
        return tuple(dict.fromkeys((self.policy, *(each for each in self.compare if each not in GATELESS))))

    @property
    def gateless(self) -> tuple[str, ...]:
        """Curves to show among the policies: `never` and `newest`, as far as named."""
        return tuple(dict.fromkeys(each for each in self.compare if each in GATELESS))

    @model_validator(mode="after")
    def _some_days(self) -> Self:
        if self.days < MIN_DAYS:
            raise ValueError(f"a replay takes {MIN_DAYS} days or more: {self.start} to {self.end}")
        return self

    @model_validator(mode="after")
    def _policy_with_gate(self) -> Self:
        if self.policy in GATELESS:
            raise ValueError(
                f"{self.policy} has no gate: name it as a policy to compare with, not as the policy"
            )
        return self

    @model_validator(mode="after")
    def _one_market(self) -> Self:
        if (self.symbol is None) == (self.world is None):
            raise ValueError("a replay takes either a symbol or a world")
        if self.world is not None and self.timeframe != "1h":
            raise ValueError(f"a world has hourly bars: timeframe 1h, not {self.timeframe}")
        if self.world_change is not None and (self.world is None or not self.world.changes):
            raise ValueError("a day of the change belongs to the worlds dying and moving")
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
    outcome: str = ""
    """Verdict of a retrain, decision of a shadow, change of production, or answer to a request."""
    reason: TriggerReason | None = None
    """Reason of a retrain or of a request to retrain."""


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


class TriggerWorth(BaseModel):
    """Retrains for one reason, and the worth of the retrains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: TriggerReason
    retrains: int
    passed: int
    inconclusive: int
    failed: int
    promoted: int
    """Number of versions that were in production."""
    days_in_production: float
    earned: float
    """Return of the production while versions of these retrains were in production, a fraction."""
    without: float
    """Return of the production over the same time if the version before had stayed in production instead;
    flat where there was none, or none that was not trained for the same reason."""
    fits: int
    """Number of models fitted: final models, and folds that no earlier retrain of the replay fitted."""
    trials: int
    """Backtests counted as trials."""
    seconds: float = 0.0
    """Processor time of the trainings, when first done; not part of the digest."""

    @property
    def worth(self) -> float:
        return self.earned - self.without


class KnownService(BaseModel):
    """Time of a version in production, with the knowledge of the world.

    Expected returns are the positions times the expected returns of the market, given the hidden state before
    each bar, less the costs of trading: luck is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    since: AwareDatetime
    until: AwareDatetime
    is_promotion: bool
    """False for a version put back by a rollback."""
    is_taken_back: bool
    """True for a version taken out of production by a rollback or a halt."""
    expected: float
    """Expected return while in production, and over the first `LOOK_DAYS` at least, a fraction."""
    expected_after: float | None
    """Expected return over the `LOOK_DAYS` after a rollback or a halt, had the version stayed."""

    @property
    def is_false_promotion(self) -> bool:
        """True for a version promoted without an expected gain."""
        return self.is_promotion and not self.expected > 0.0

    @property
    def is_false_ending(self) -> bool:
        """True for a version taken back with an expected gain over the days after."""
        return self.expected_after is not None and self.expected_after > 0.0


class KnownCourse(BaseModel):
    """A policy seen with the knowledge of the world."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    services: tuple[KnownService, ...]
    false_promotions: int
    """Number of promotions without an expected gain."""
    false_endings: int
    """Number of rollbacks and halts of versions with an expected gain over the days after."""
    expected_return: float
    """Expected return of the production over the replay, a fraction."""
    outlived_days: float
    """Days in production after the change of the edge, of versions trained before; 0 without a change."""
    positions: tuple[float, ...] = Field(default=(), repr=False)
    """Mean exposure of the production on each UTC day, as a fraction of equity."""
    edge: tuple[float, ...] = Field(default=(), repr=False)
    """Strength of the edge at the end of each UTC day: 1 alive, 0 none, below 0 for losses by the signal."""
    drift: tuple[float, ...] = Field(default=(), repr=False)
    """Mean expected return of a bar on each UTC day, a fraction."""


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
    worth: tuple[TriggerWorth, ...] = ()
    """Reasons of the retrains, the most frequent first."""
    known: KnownCourse | None = None
    """Knowledge of the world; None for a market."""

    @property
    def production(self) -> ReplayCurve:
        return self.curves[0]

    @property
    def digest(self) -> str:
        """SHA-256 over events, curves and counts, hexadecimal: equal for equal replays."""
        counted = self.model_dump_json(exclude={"worth": {"__all__": {"seconds"}}})
        return hashlib.sha256(counted.encode()).hexdigest()


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
