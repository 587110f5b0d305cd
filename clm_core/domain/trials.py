"""Everything that was ever tried for a market: the luck of the best one grows with every try."""

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
    """One look at out-of-sample results; counted whatever came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    id: UUID
    source: TrialSource
    model_id: str
    symbol: str
    timeframe: str
    job_id: UUID | None
    """The training job; None for what was tried outside one."""
    params: dict[str, Any]
    seed: int
    sharpe: float
    """Of a bar, not annualised; NaN, like what follows, where it could not be measured."""
    skewness: float
    kurtosis: float
    """Pearson's: 3 for a normal distribution."""
    bars: int = Field(ge=0)
    effective_bars: float
    """Independent bars that would tell as much."""
    period_start: datetime
    """Open time of the first out-of-sample bar."""
    period_end: datetime
    """Open time of the last one."""
    at: datetime
