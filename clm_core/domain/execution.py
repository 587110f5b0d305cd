"""Execution rules of a backtest: from positions to orders."""

from pydantic import BaseModel, ConfigDict, Field


class Execution(BaseModel):
    """Rules that turn positions into orders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial_cash: float = Field(default=10_000.0, gt=0, allow_inf_nan=False)
    """Starting capital of a backtest, in the currency of the prices."""
    stop_loss: float | None = Field(default=None, gt=0, lt=1)
    """Adverse move from the average entry price that closes a trade, as a fraction."""
    take_profit: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Favourable move from the average entry price that closes a trade, as a fraction."""
    lot_size: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Smallest tradable quantity; orders are rounded towards zero to whole lots. None for any quantity."""
