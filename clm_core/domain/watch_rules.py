"""Limits of the watch over production versions: `[watch]` in the settings."""

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.evaluations import MIN_BARS


class WatchRules(BaseModel):
    """Limits of degraded performance and of drift; `[watch]` in the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    window_days: int = Field(default=90, ge=1, le=3650)
    """Days of newest bars to measure, at most; only bars after the training count."""
    min_bars: int = Field(default=240, ge=MIN_BARS)
    """Minimum number of new bars for a decision."""
    min_trades: int = Field(default=10, ge=1)
    """Minimum number of closed trades on the new bars for a decision."""
    confidence: float = Field(default=0.9, ge=0.5, lt=1)
    """Required probability of a true Sharpe ratio below `triggers.max_sharpe_ratio`, in [0.5, 1); at 0.5 the
    observed ratio alone decides."""
    drift_days: int = Field(default=14, ge=1, le=3650)
    """Days of newest bars whose features are compared with the training; all must be after the training."""
    drift_score: float = Field(default=1.25, gt=0)
    """Score above which features have drifted; 1 is the distance of the training's own furthest stretch."""
