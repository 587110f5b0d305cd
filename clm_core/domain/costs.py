"""Trading costs, the same for every backtest and for every model that weighs a trade."""

from pydantic import BaseModel, ConfigDict, Field


class Costs(BaseModel):
    """Trading costs on each side of a trade, in basis points (1/10,000) of the traded value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fee_bps: float = Field(default=5.0, ge=0, lt=10_000, allow_inf_nan=False)
    """Exchange fee."""
    slippage_bps: float = Field(default=2.0, ge=0, lt=10_000, allow_inf_nan=False)
    """Difference between an order's price (the bar's open, or the level of a stop) and the worse fill."""
