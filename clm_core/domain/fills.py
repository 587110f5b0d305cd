"""Fills: trades that a trader says to have done for a model, and figures made from them."""

from collections.abc import Callable
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from clm_core.domain.costs import Costs
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.listings import Listing, Page
from clm_core.domain.moments import Moment

FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
MAX_FILLS = 1000
"""Fills of one report."""
MIN_BARS = 30
"""Bars with fills from which costs are measured."""
WINDOW_DAYS = 90
"""Days of the fills behind measured costs."""
MAX_HALF_WIDTH_BPS = 2.0
"""Largest half width of the interval of the slippage with which measured costs replace modelled costs."""

FillId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,100}$")]
"""Id of the sender's, unique within a model."""


class Fill(BaseModel):
    """A trade as reported."""

    model_config = FROZEN

    id: FillId
    """Id of the sender's, unique within the model: the same id with the same contents is known already."""
    model_id: str = Field(max_length=100)
    version: str = Field(max_length=100)
    """Version whose position was traded."""
    symbol: str | None = Field(default=None, max_length=100)
    """Market in any spelling; needed for a pool, whose members are markets."""
    time: Moment
    change: float = Field(ge=-2.0, le=2.0)
    """Value bought (above 0) or sold (below 0) over the equity at the open of the bar, -2..2; of a pool, over
    the member's share of the equity."""
    price: float = Field(gt=0.0)
    fee_bps: float | None = Field(default=None, gt=-10_000, lt=10_000)
    """Fee, basis points of the traded value; below 0 for a rebate. None: not reported."""
    resting: bool = False
    """True for a stop loss or take profit: its price is no slippage against the open of the bar."""

    @model_validator(mode="after")
    def _trades(self) -> Self:
        if self.change == 0.0:
            raise ValueError("change is 0: report trades only")
        return self


class RecordedFill(Fill):
    """A fill in the ledger."""

    symbol: str = Field(max_length=100)
    """Canonical name of the market."""
    reported_by: str
    at: AwareDatetime
    """Time of the report."""

    def repeats(self, other: "RecordedFill") -> bool:
        """True if both have the same contents, whoever reported them and when."""
        reported = set(Fill.model_fields)
        return self.model_dump(include=reported) == other.model_dump(include=reported)


class ListedFill(RecordedFill):
    """A fill with the slippage."""

    slippage_bps: float | None
    """Slippage against the open of the bar, basis points, above 0 is worse; None for a resting order, or a
    bar that is no longer stored."""


class FillReceipt(BaseModel):
    """Answer to a report."""

    model_config = FROZEN

    new: int
    """Number of fills reported for the first time."""
    known: int
    """Number of fills that were reported before with the same contents."""


class FillQuery(Listing):
    """Fills of a model by the time of the trade."""

    version: str | None = None
    symbol: str | None = None


class MeasuredCosts(BaseModel):
    """Costs of trading a market by the fills of the last `WINDOW_DAYS` days, resting orders apart."""

    model_config = FROZEN

    fills: int
    bars: int
    """Number of bars with fills."""
    slippage_bps: IntervalEstimate | None
    """Mean by traded value, with an interval of 95 % over bars; None with fewer than two bars."""
    fee_bps: float | None
    """Mean of the reported fees by traded value; None: no fee was reported."""
    costs: Costs | None
    """Measured costs that replace the modelled costs in comparisons of versions; None: see `reason`."""
    reason: str | None
    """Reason why comparisons keep the modelled costs."""


class MarketFills(BaseModel):
    """Fills of a model in a market, beside the paper record of production, from the first fill on."""

    model_config = FROZEN

    symbol: str
    fills: int
    since: AwareDatetime
    """Time of the first fill."""
    newest: AwareDatetime
    """Time of the newest fill."""
    until: AwareDatetime | None
    """Open time of the newest bar of the figures below, the last bar but one; None without such a bar."""
    turnover: float | None
    """Value filled, as a multiple of the equity."""
    paper_turnover: float | None
    """Value traded on paper."""
    realised_return: float | None
    """Total return of the fills after reported fees (modelled where not reported) and modelled costs of
    holding, a fraction."""
    paper_return: float | None
    """Total return on paper at the modelled costs, a fraction."""
    position: float | None
    """Exposure by the fills after the newest bar, value over equity."""
    paper_position: float | None
    """Exposure on paper."""
    modelled: Costs
    """Costs of the home in force."""
    measured: MeasuredCosts

    @property
    def sentence(self) -> str:
        """Figures for people."""
        parts = [f"{self.symbol}: {self.fills:,} fills", *self._returns(), *self._costs()]
        kept = self.measured.reason
        parts.append(f"comparisons pay modelled costs: {kept}" if kept else "comparisons pay measured costs")
        return "; ".join(parts)

    def _costs(self) -> list[str]:
        slippage = self.measured.slippage_bps
        fee = self.measured.fee_bps
        slipped = "not measured" if slippage is None else f"{slippage.text(_number)} bps"
        paid = "not reported" if fee is None else f"{fee:.2f} bps"
        return [
            f"slippage {slipped}, modelled {self.modelled.slippage_bps:g} bps",
            f"fees {paid}, modelled {self.modelled.fee_bps:g} bps",
        ]

    def _returns(self) -> list[str]:
        if self.until is None:
            return []
        return [
            f"turnover {self.turnover:.2f} of {self.paper_turnover:.2f} on paper",
            f"realised return {self.realised_return:+.2%} against {self.paper_return:+.2%} on paper",
            f"position {self.position:+.3f} against {self.paper_position:+.3f} on paper",
        ]


class FillPage(Page[ListedFill]):
    """Part of the fills of a model, with the figures of each market."""

    model_id: str
    markets: tuple[MarketFills, ...]


_number: Callable[[float], str] = "{:.2f}".format
