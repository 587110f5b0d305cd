"""Limits of the watch over production versions: `[watch]` in the settings."""

import warnings
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clm_core.domain.errors import DeprecatedSetting
from clm_core.domain.measures import MIN_BARS


class WatchRules(BaseModel):
    """Limits of degraded performance and of drift; `[watch]` in the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    window_days: int = Field(default=90, ge=1, le=3650)
    """Days of newest bars for the Sharpe ratio shown, at most; the alarm takes all since the training."""
    min_bars: int = Field(default=240, ge=MIN_BARS)
    """Minimum number of new bars for a decision; of longer bars, as many as `window_days` hold."""
    min_trades: int = Field(default=10, ge=1)
    """Minimum number of closed trades on the new bars for a decision."""
    confidence: float | None = Field(default=None, ge=0.5, lt=1)
    """Without effect, accepted in this release only: the alarm has a declared rate of false alarms."""
    drift_days: int = Field(default=14, ge=1, le=3650)
    """Days of newest bars whose features are compared with the training; all must be after the training."""
    drift_score: float = Field(default=1.25, gt=0)
    """Score above which features have drifted; 1 is the distance of the training's own furthest stretch."""
    stale_bars: int = Field(default=3, ge=1, le=100_000)
    """Number of late bars, by the calendar of a market, from which on its bars are stale; at least an hour of
    bars."""
    regime_changes: bool = True
    """True to request a retrain when the regime of the market is another than at the end of the training."""

    @model_validator(mode="after")
    def _warn_of_confidence(self) -> Self:
        if self.confidence is not None:
            warnings.warn(
                "watch.confidence has no effect any more: a sequential test with a declared rate of false "
                "alarms decides. Remove the setting, it is accepted in this release only.",
                DeprecatedSetting,
                stacklevel=2,
            )
        return self
