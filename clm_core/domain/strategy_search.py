"""Searches for rule strategies: objectives, request, definition and result."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.evolution import Crossover, CrossoverOf, Mutation, MutationOf, Selection
from clm_core.domain.jobs import NOBODY
from clm_core.domain.kinds import Kind, model_id
from clm_core.domain.searches import (
    BarLength,
    Engine,
    MarketSearch,
    On,
    Placement,
    RayAddress,
    Requester,
    SearchedMarket,
    SpanDays,
)
from clm_core.domain.spellings import span_by_timeframe
from clm_core.domain.vocabulary import CandidateOrigin, ModelType, RuleFamily

Member = TypeVar("Member")


class Objective(StrEnum):
    """Objectives of a search for strategies; greater is better."""

    SHARPE_RATIO = "sharpe_ratio"
    MAX_DRAWDOWN = "max_drawdown"
    """Largest drawdown, a negative fraction."""
    WIN_RATE = "win_rate"
    PROFIT_FACTOR = "profit_factor"
    SCORE = "score"
    """Score of the gate, 0..100: half Sharpe ratio, 30 % win rate, 20 % profit factor."""


PARETO = (Objective.SHARPE_RATIO, Objective.MAX_DRAWDOWN, Objective.WIN_RATE)
"""Objectives of a search that states none."""
MAX_MEMBERS = 20
"""Maximum number of members of an ensemble of a front."""
ELITE_SHARE = 0.1
"""Share of a generation that a search by a single objective keeps."""


def _each_once(values: tuple[Member, ...]) -> tuple[Member, ...]:
    if len(set(values)) < len(values):
        raise ValueError("name each once")
    return values


Families = Annotated[tuple[RuleFamily, ...], Field(min_length=1), AfterValidator(_each_once)]
Objectives = Annotated[tuple[Objective, ...], Field(min_length=1, max_length=5), AfterValidator(_each_once)]


def _in_order(schema: dict[str, Any]) -> None:
    """Order of the launch form: that of the fields."""
    for position, field in enumerate(schema["properties"].values()):
        field["position"] = position


class StrategySearchRequest(BaseModel):
    """Request to search for rule strategies."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_in_order)

    families: Families = Field(
        default=tuple(RuleFamily),
        title="Strategies",
        description="Families of rule strategies; with several, a gene chooses the family.",
    )
    symbol: SearchedMarket
    timeframe: BarLength = "1h"
    dataset_span_days: SpanDays = Field(default_factory=span_by_timeframe)
    population: int = Field(default=100, ge=4, le=1000, description="Candidates of a generation.")
    generations: int = Field(
        default=50,
        ge=1,
        le=1000,
        description="Number of generations bred after generation 0, which is random but for the defaults.",
    )
    objectives: Objectives = Field(
        default=PARETO,
        description="Objectives, each the lower quartile over 45 combinatorial test sets. Several: NSGA-II, "
        "a Pareto front. One, as score: a genetic algorithm that keeps the best tenth.",
    )
    selection: Selection = Field(
        default=Selection.TOURNAMENT,
        description="Selection of parents: the better of two drawn at random (tournament), or random with a "
        "probability that grows with the standing (roulette).",
    )
    crossover: CrossoverOf = Crossover.UNIFORM
    mutation: MutationOf = Mutation.GAUSSIAN
    holdout: float = Field(
        default=0.2,
        ge=0,
        le=0.5,
        title="Held out",
        description="Share of the bars, the newest, held out from the search; the front is evaluated on them "
        "once, at the end.",
    )
    training_params: dict[str, Any] = Field(
        default_factory=dict,
        title="Fixed parameters",
        description='Parameters of a single family that are not searched, as JSON: {"stop_loss": "none"}.',
    )
    seed: int = Field(default=0, ge=0, description="Seed of the search.")
    name: str | None = Field(
        default=None,
        pattern=r"^[\w.-]{1,100}$",
        description="Name of the search; a stopped search continues under its name. Empty: a new search.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Threads, or actors on a Ray cluster, that evaluate candidates. Empty: one a processor.",
    )
    on: On = Engine.LOCAL
    ray_address: RayAddress = None
    requested_by: Requester = NOBODY

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.training_params and len(self.families) > 1:
            raise ValueError("fixed parameters belong to one family: name a single strategy")
        if self.population < len(self.families):
            raise ValueError(
                f"a population of at least {len(self.families)} is needed: each family begins at its defaults"
            )
        return self

    @property
    def subject(self) -> str:
        """`momentum_btcusd_1h`, or `strategies_btcusd_1h` for several families."""
        return _subject(self.families, self.symbol, self.timeframe)

    @property
    def placement(self) -> Placement:
        return Placement(on=self.on, ray_address=self.ray_address, workers=self.workers)


def _subject(families: tuple[RuleFamily, ...], symbol: str, timeframe: str) -> str:
    if len(families) == 1:
        return model_id(Kind(ModelType.OTHER, families[0].value), symbol, timeframe)
    return model_id(Kind(ModelType.OTHER, "strategies"), symbol, timeframe)


class StrategySearch(MarketSearch):
    """Definition of a search for strategies."""

    families: tuple[RuleFamily, ...]
    population: int
    generations: int
    """Number of generations after generation 0 asked for at the start; a search may be continued for more."""
    objectives: tuple[Objective, ...]
    selection: Selection
    crossover: Crossover
    mutation: Mutation

    @property
    def subject(self) -> str:
        """`momentum_btcusd_1h`, or `strategies_btcusd_1h` for several families."""
        return _subject(self.families, self.symbol, self.timeframe)

    def changes(self, other: "StrategySearch") -> dict[str, tuple[Any, Any]]:
        """Differences against comparing the candidates of two searches: own and other value by field."""
        ignored = {"name", "generations", "requested_by", "created_at"}
        mine, theirs = (each.model_dump(mode="json", exclude=ignored) for each in (self, other))
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


class GenerationSummary(BaseModel):
    """A generation of a search."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: int
    new: int
    """Number of candidates evaluated first in this generation."""
    front: int
    """Number of members on the Pareto front; with a single objective, of the elite."""
    hypervolume: float
    """Volume between the members and the lowest scores of generation 0."""
    best: tuple[float | None, ...]
    """Greatest score of each objective among the members."""
    effective_trials: float
    """Effective number of independent trials of all generations so far."""


class PeriodResult(BaseModel):
    """Result of a strategy on one stretch of bars, net of costs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sharpe_ratio: float
    """Annualised."""
    sharpe_interval: IntervalEstimate | None = None
    """Sharpe ratio with the interval of 95 %, on held-out bars only: that of the best of many means nothing
    on the bars of the choice."""
    total_return: float
    max_drawdown: float
    win_rate: float | None
    """None without a trade."""
    profit_factor: float | None
    """None without a trade, or without a losing one."""
    trades: int


class FoundStrategy(BaseModel):
    """A strategy of the front, or the defaults of a family."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    candidate: UUID
    """Id of the strategy candidate, for `clm retrain --params-from`."""
    family: RuleFamily
    params: dict[str, Any]
    """Fixed and searched parameters."""
    origin: CandidateOrigin
    generation: int
    """Generation in which the strategy was evaluated first."""
    scores: dict[Objective, float | None]
    """Lower quartiles over the test sets."""
    searched: PeriodResult
    """Result on all bars of the search."""
    deflated_sharpe: float | None
    """Probability that the Sharpe ratio on the bars of the search exceeds the luck of the search, 0..1."""
    overfitting: float | None = None
    """Share of the halves of the days of the search on which the strategy ranks at or below the median of all
    candidates, 0..1; None if not measured."""
    held_out: PeriodResult | None = None
    """Result on the held-out bars; None without held-out bars."""
    on_held_out_front: bool | None = None
    """True if no other member of the front is better in every objective on the held-out bars."""


class StrategySearchResult(BaseModel):
    """Result of a search for strategies."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    families: tuple[RuleFamily, ...]
    symbol: str
    timeframe: str
    dataset_span_days: int
    objectives: tuple[Objective, ...]
    interrupted: bool
    """True if Ctrl-C ended the search before the last generation."""
    generations: tuple[GenerationSummary, ...]
    candidates: int
    """Number of candidates evaluated, each a counted trial."""
    unmeasured: int
    """Number of candidates without a score: no trade in more than a quarter of the test sets."""
    effective_trials: float
    """Effective number of independent trials of the search."""
    overfitting: float | None
    """Probability of backtest overfitting of the choice by Sharpe ratio, 0..1; None if not measured."""
    loss: float | None
    """Probability that the choice has a Sharpe ratio of at most 0 on other bars, 0..1."""
    selection_days: int
    """Number of days behind both."""
    searched_bars: int
    held_out_bars: int
    front: tuple[FoundStrategy, ...]
    """Strategies of the front by falling first objective; empty after an interrupt."""
    defaults: tuple[FoundStrategy, ...]
    """Each family at the defaults."""
    diverse: tuple[UUID, ...] = ()
    """Candidates of the front with different returns, best deflated Sharpe ratio first: members of an
    ensemble, see `evolution.diversity`."""
    shrinkage: float | None
    """Share of the front's Sharpe ratio lost on the held-out bars: 1 less the ratio of the medians; None
    without held-out bars, or where the front earned nothing."""
    picture: Path | None = None
    report: Path | None = None
    """Page of the search, once it is written."""

    @property
    def subject(self) -> str:
        return _subject(self.families, self.symbol, self.timeframe)


class Verification(BaseModel):
    """Comparison of a recorded search with the same search computed again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    generations: int
    candidates: int
    members: int
    """Strategies of the recorded front."""
    differences: tuple[str, ...]
    """Differences, to the last bit; empty for equal results."""


def shown_params(params: Mapping[str, Any]) -> str:
    """`look_back 20, threshold 0.02`."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )
