"""What a version must show, out of sample and after costs, to pass the gate."""

from pydantic import BaseModel, ConfigDict, Field


class PromotionCriteria(BaseModel):
    """Limits of the gate; every one of them must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_sharpe_ratio: float = 1.0
    """Annualised."""
    min_win_rate: float = Field(default=0.52, ge=0, le=1)
    """Share of closed trades with a positive net return."""
    min_profit_factor: float = Field(default=1.3, ge=0)
    """Sum of winning over sum of losing net trade returns."""
    max_drawdown: float = Field(default=0.15, ge=0, le=1)
    """Deepest tolerated fall of equity below its running peak, as a positive fraction."""
    min_trades: int = Field(default=50, ge=0)
    """Closed trades; fewer are too thin to judge by."""
    seed_quantile: float = Field(default=0.25, ge=0, le=1)
    """Of a recipe tried with several seeds, the try that is judged, by Sharpe ratio: 0 is the worst."""
