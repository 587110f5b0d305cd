"""Searches over training parameters: the request, and the definition that the ledger records."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.costs import Costs, HoldingCosts, MarketCosts
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.execution import Execution
from clm_core.domain.jobs import NOBODY
from clm_core.domain.kinds import OfModel, PluginName
from clm_core.domain.search_space import SearchDimension
from clm_core.domain.spellings import NOT_EMPTY, TIMEFRAMES, TimeframeName, span_by_timeframe
from clm_core.domain.terms import TradingTerms
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan


class Engine(StrEnum):
    """Place where a search is computed."""

    LOCAL = "local"
    """This machine: processes for trainings, threads for rule strategies."""
    PROCESSES = "processes"
    """Processes of this machine."""
    RAY = "ray"
    """Machines of a Ray cluster."""


class Sampler(StrEnum):
    """Choice of the next parameters of a study."""

    TPE = "tpe"
    """Tree-structured Parzen estimator: quick, and indifferent to the number of trials."""
    GP = "gp"
    """Gaussian process: a proposal takes a fifth of a second within 100 trials, and more with more."""


class Placement(BaseModel):
    """Workers of a search. The results of an evolution do not depend on them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: Engine = Engine.LOCAL
    ray_address: str | None = None
    """Address of the Ray cluster; None for RAY_ADDRESS, or a cluster on this machine."""
    workers: int | None = None
    """Number of workers; None for one per processor."""

    @property
    def threads(self) -> int | None:
        """Number of workers in this process; None for one per processor."""
        return self.workers if self.on is Engine.LOCAL else None


On = Annotated[Engine, Field(description="Place where the search is computed.")]
RayAddress = Annotated[
    str | None,
    Field(
        title="Ray address",
        description="Address of the Ray cluster, as host:6379. Empty: RAY_ADDRESS, or a cluster on this "
        "machine.",
    ),
]
SearchedMarket = Annotated[
    str, Field(description="Market, as in clm data list: BTCUSD.", json_schema_extra=NOT_EMPTY)
]
BarLength = Annotated[
    TimeframeName, Field(description="Length of a bar.", json_schema_extra={"enum": list(TIMEFRAMES)})
]
SpanDays = Annotated[
    int,
    Field(
        gt=0,
        le=36_500,
        title="Span of the data (days)",
        description="Days of bars, counted back from the newest bar. Empty: five years of "
        "hourly bars (docs/how-to/retrain.md for other lengths).",
    ),
]
Requester = Annotated[
    str,
    Field(title="Requested by", description="Your name, for the audit log; this form knows no accounts."),
]


def _own_fields_after_the_span(schema: dict[str, Any]) -> None:
    """Order of the launch form: the fields of one kind of search follow model, market and span."""
    every = schema["properties"]
    shared = list(SearchRequest.model_fields)
    own = [name for name in every if name not in shared]
    place = shared.index("dataset_span_days") + 1
    for position, name in enumerate([*shared[:place], *own, *shared[place:]]):
        every[name]["position"] = position


class SearchRequest(OfModel):
    """Fields common to the requests of tuning and evolution."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_own_fields_after_the_span)

    model_type: ModelType = Field(title="Model type", description="Type of model to search parameters for.")
    plugin: PluginName | None = Field(
        default=None,
        title="Plug-in",
        description="Name of the plug-in or rule strategy of model type other, as in clm models list-types: "
        "momentum. Otherwise empty.",
    )
    symbol: SearchedMarket
    timeframe: BarLength = "1h"
    dataset_span_days: SpanDays = Field(default_factory=span_by_timeframe)
    holdout: float = Field(
        default=0.2,
        ge=0,
        le=0.5,
        title="Held out",
        description="Share of the bars, the newest, held out from the search: the best parameters and the "
        "defaults are evaluated on the held-out bars once, at the end. 0 holds out none.",
    )
    training_params: dict[str, Any] = Field(
        default_factory=dict,
        title="Fixed parameters",
        description='Training parameters that are not searched, as JSON: {"horizon": 24}.',
    )
    seed: int = Field(
        default=0, ge=0, description="Seed of the search, and first training seed of each trial."
    )
    seeds: int | None = Field(
        default=None,
        ge=1,
        le=20,
        title="Seeds",
        description="Number of seeds each set of parameters is evaluated with. Empty: as many as a retrain "
        "of the model type uses.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Sets of parameters evaluated in parallel. Empty: one per processor.",
    )
    on: On = Engine.LOCAL
    ray_address: RayAddress = None
    requested_by: Requester = NOBODY

    @property
    def placement(self) -> Placement:
        return Placement(on=self.on, ray_address=self.ray_address, workers=self.workers)


class MarketSearch(BaseModel):
    """Market, bars and terms of a search. Never changed after the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    symbol: str
    timeframe: str
    dataset_span_days: int
    data_snapshot: str
    """Content hash of the series at the start of the search, by which the bars can be read again."""
    series: dict[str, str] = Field(default_factory=dict)
    """Content hashes of the own series in use at the start of the search, by name."""
    holdout: float
    """Share of the bars, the newest, held out from the search; 0..0.5."""
    fixed: dict[str, Any]
    """Training parameters that are not searched."""
    seed: int
    """Seed of the search."""
    costs: Costs
    execution: Execution
    holding: HoldingCosts = HoldingCosts()
    long_only: bool = False
    adjusted: bool = False
    funding_hash: str | None = None
    """Content hash of the stored funding rates at the start of the search, if any."""
    dividends_hash: str | None = None
    """Content hash of the stored dividends at the start of the search, if any."""
    requested_by: str
    created_at: datetime

    @property
    def terms(self) -> TradingTerms:
        """Terms of trading at the start of the search."""
        return TradingTerms(
            costs=self.costs,
            holding=self.holding,
            execution=self.execution,
            long_only=self.long_only,
            adjusted=self.adjusted,
            funding_hash=self.funding_hash,
            dividends_hash=self.dividends_hash,
        )

    @property
    def market_costs(self) -> MarketCosts:
        return self.terms.market_costs


class Search(OfModel, MarketSearch):
    """Definition of a search over training parameters. Each trial trains with `seed` and following seeds."""

    model_type: ModelType
    plugin: str | None = None
    """Name of the plug-in; None unless the type is OTHER."""
    own_features: dict[str, str] = Field(default_factory=dict)
    """Digests of the source of the own features in use at the start of the search, by name."""
    space: dict[str, SearchDimension]
    """Training parameters that are searched."""
    seeds: int = 1
    """Number of seeds each set of parameters is evaluated with: `seed` and the following integers."""
    plan: WalkForwardPlan


class Tuning(Search):
    """Definition of a study at its start."""

    trials: int
    """Number of trials requested at the start."""
    sampler: Sampler = Sampler.TPE
    """Choice of the parameters of the trials; that of every study of release 0.1.0 is TPE."""

    def changes(self, other: "Tuning") -> dict[str, tuple[Any, Any]]:
        """Differences that make the trials of two studies incomparable: field name to own and other value."""
        ignored = {"name", "trials", "requested_by", "created_at"}
        mine, theirs = (each.model_dump(mode="json", exclude=ignored) for each in (self, other))
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


class HeldOutSharpe(BaseModel):
    """Annualised Sharpe ratios on the held-out bars, means of all seeds; None where not measurable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bars: int
    """Number of held-out bars."""
    best: float | None
    """Sharpe ratio of the best parameters."""
    defaults: float | None
    """Sharpe ratio of the default parameters."""
    best_interval: IntervalEstimate | None = None
    """Sharpe ratio of the best parameters with the interval of 95 %; None where not measured."""
    defaults_interval: IntervalEstimate | None = None
    """Sharpe ratio of the default parameters with the interval of 95 %."""
