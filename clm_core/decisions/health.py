"""Whether a version that serves still earns what it should, by the bars it was not trained on.

An observed Sharpe ratio below the limit is no proof: measured over 90 days it has a standard error of 2,
however many bars that makes. So it is asked how probable it is that the true one is below, and only when
there are bars and trades enough to ask at all.
"""

import math
from collections.abc import Iterator
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from clm_core.decisions.staleness import Due
from clm_core.domain.triggers import Observation
from clm_core.domain.vocabulary import TriggerReason
from clm_core.evidence.track_record import MIN_BARS, probabilistic_sharpe_ratio, track_record
from clm_core.market.bars import Floats
from clm_core.market.drift import Drift


class WatchRules(BaseModel):
    """When the models that serve are said to earn too little; `[watch]` in the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    window_days: int = Field(default=90, ge=1, le=3650)
    """Of the bars that are new to a version, the newest so many days are looked at."""
    min_bars: int = Field(default=240, ge=MIN_BARS)
    """With fewer new bars it is too early to say."""
    min_trades: int = Field(default=10, ge=1)
    """With fewer closed trades on them it is too early to say."""
    confidence: float = Field(default=0.9, ge=0.5, lt=1)
    """How probable it must be that the true Sharpe ratio is below `triggers.max_sharpe_ratio`, 0.5 up to, not
    including, 1; with 0.5 the observed one alone decides."""
    drift_days: int = Field(default=14, ge=1, le=3650)
    """The newest bars, all of them new to the version, whose features are compared with its training."""
    drift_score: float = Field(default=1.25, gt=0)
    """They have drifted above it; at 1 they lie as far from the training as its own furthest stretch does."""


class Performance(BaseModel):
    """What a version's positions earned on bars that are new to it, after costs; None: not to be measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bars: int = 0
    """Looked at."""
    trades: int = 0
    """Closed by the model, a stop or a target: not what merely is open at the end."""
    sharpe_ratio: float | None = None
    """Annualised."""
    max_drawdown: float | None = None
    """Negative fraction."""
    confidence: float | None = None
    """Probability, 0..1, that the true Sharpe ratio is below the limit."""


class HealthFinding(StrEnum):
    DEGRADED = "degraded"
    HOLDS = "holds"
    UNSURE = "unsure"
    """Below the limit, and luck may explain it."""
    TOO_EARLY = "too_early"
    UNMEASURABLE = "unmeasurable"


def confidence_below(returns: Floats, limit: float, periods_per_year: float) -> float:
    """Probability, 0..1, that the true Sharpe ratio is below an annualised limit; NaN: not to be measured.

    Args:
        returns: simple returns per bar, shape (n_bars,), as fractions.
        periods_per_year: bars in a year.
    """
    return 1.0 - probabilistic_sharpe_ratio(track_record(returns), limit / math.sqrt(periods_per_year))


def judge(seen: Performance, rules: WatchRules, limit: float) -> tuple[HealthFinding, str]:
    """What that is worth, and why in words; what could not be measured is neither bad nor good."""
    if not (seen.bars >= rules.min_bars and seen.trades >= rules.min_trades):
        return HealthFinding.TOO_EARLY, (
            f"{seen.bars:,} new bars and {seen.trades} closed trades say too little, "
            f"{rules.min_bars} and {rules.min_trades} are needed"
        )
    if seen.sharpe_ratio is None or seen.confidence is None:
        return (
            HealthFinding.UNMEASURABLE,
            "its Sharpe ratio cannot be measured: its returns never vary, or are none",
        )
    observed = f"Sharpe ratio {seen.sharpe_ratio:.2f}"
    if seen.sharpe_ratio >= limit:
        return HealthFinding.HOLDS, f"{observed} is not below {limit:g}"
    sure = f"{observed} is below {limit:g}, and the true one with a probability of {seen.confidence:.0%}"
    if not seen.confidence >= rules.confidence:
        return HealthFinding.UNSURE, f"{sure}: luck may explain it, {rules.confidence:.0%} are needed"
    return HealthFinding.DEGRADED, sure


def due(
    model_id: str, seen: Performance, finding: HealthFinding, drift: Drift | None, rules: WatchRules
) -> Iterator[Due]:
    """What to ask the door for."""
    if finding is HealthFinding.DEGRADED:
        observed = Observation(sharpe_ratio=seen.sharpe_ratio)
        yield Due(model_id, TriggerReason.PERFORMANCE_DEGRADED, observed)
    if drift is not None and drift.score > rules.drift_score:
        yield Due(model_id, TriggerReason.DRIFT_DETECTED, Observation())
