"""Trading costs, the same for every backtest and for every model that weighs a trade."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field


class Costs(BaseModel):
    """Trading costs on each side of a trade, in basis points (1/10,000) of the traded value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fee_bps: float = Field(default=5.0, ge=0, lt=10_000, allow_inf_nan=False)
    """Exchange fee."""
    slippage_bps: float = Field(default=2.0, ge=0, lt=10_000, allow_inf_nan=False)
    """Difference between an order's price (the bar's open, or the level of a stop) and the worse fill."""


class HoldingCosts(BaseModel):
    """Constant costs of holding a position, in basis points of the position's value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    funding_bps_per_8h: float = Field(default=0.0, gt=-1_000, lt=1_000, allow_inf_nan=False)
    """Funding rate of a perpetual at 00:00, 08:00 and 16:00 UTC: longs pay, shorts receive; a negative rate
    is received by longs. Stored funding rates replace the constant where they exist."""
    borrow_bps_per_year: float = Field(default=0.0, ge=0, lt=100_000, allow_inf_nan=False)
    """Cost of borrowing the units sold short, accrued over calendar time (actual/365)."""


class MarketCosts(Costs):
    """All constant costs of a market, as a training sees them."""

    holding: HoldingCosts = HoldingCosts()
    long_only: bool = False
    """True for a market without short positions: targets below 0 are traded as 0."""

    @classmethod
    def of(cls, costs: Costs) -> Self:
        """The costs themselves, or costs of trading alone with free holding."""
        return costs if isinstance(costs, cls) else cls(**costs.model_dump())
