"""Trials: every evaluation for a market is recorded, as the best of many trials owes more to luck."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class TrialSource(StrEnum):
    RETRAIN = "retrain"
    TUNING = "tuning"
    EVOLUTION = "evolution"


class Trial(BaseModel):
    """An evaluation of parameters out of sample, counted whatever the result."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    id: UUID
    source: TrialSource
    model_id: str
    symbol: str
    timeframe: str
    job_id: UUID | None
    """The training job; None for trials outside a job."""
    params: dict[str, Any]
    seed: int
    sharpe: float
    """Sharpe ratio per bar, not annualised; NaN, as the moments below, if not measurable."""
    skewness: float
    kurtosis: float
    """Pearson's kurtosis: 3 for a normal distribution."""
    bars: int = Field(ge=0)
    effective_bars: float
    """Number of independent bars with the same information."""
    period_start: datetime
    """Open time of the first out-of-sample bar."""
    period_end: datetime
    """Open time of the last out-of-sample bar."""
    at: datetime


class MatchedMarket(BaseModel):
    """Another series of the same market, with shared trials."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    symbol: str
    timeframe: str
    correlation: float
    """Correlation of the daily log returns, -1..1; 1 for a pool at another bar length."""
    days: int
    """Common days; 0 where the name alone tells."""
    trials: int
    """Trials of the series, begun ones included."""

    @property
    def text(self) -> str:
        """`BTCUSD 1h (correlation 0.97 over 900 days, 12 trials)`."""
        how = f"correlation {self.correlation:.2f} over {self.days:,} days, " if self.days else ""
        return f"{self.symbol} {self.timeframe} ({how}{self.trials:,} trials)"
