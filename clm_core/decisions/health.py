"""Performance of a production version on bars newer than the training: degraded or not, with reasons.

An observed Sharpe ratio below the limit is no proof: over 90 days the standard error is 2, whatever the
number of bars. The decision therefore rests on the probability of a true Sharpe ratio below the limit, given
enough bars and trades.
"""

import math
from collections.abc import Iterator
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from clm_core.decisions.staleness import DueRetrain
from clm_core.domain.triggers import Observation
from clm_core.domain.vocabulary import TriggerReason
from clm_core.domain.watch_rules import WatchRules
from clm_core.evidence.track_record import probabilistic_sharpe_ratio, track_record
from clm_core.market.bars import Floats
from clm_core.market.drift import Drift


class Performance(BaseModel):
    """Performance on bars newer than the training, after costs; None where not measurable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bars: int = 0
    trades: int = 0
    """Trades closed by the model, a stop or a target; an open position at the end is no trade."""
    sharpe_ratio: float | None = None
    """Annualised."""
    max_drawdown: float | None = None
    """Negative fraction."""
    confidence: float | None = None
    """Probability of a true Sharpe ratio below the limit, 0..1."""


class HealthFinding(StrEnum):
    DEGRADED = "degraded"
    HOLDS = "holds"
    UNSURE = "unsure"
    """Below the limit, but within the range of chance."""
    TOO_EARLY = "too_early"
    UNMEASURABLE = "unmeasurable"


def confidence_below(returns: Floats, limit: float, periods_per_year: float) -> float:
    """Probability of a true Sharpe ratio below an annualised limit, 0..1; NaN where not measurable.

    Args:
        returns: simple returns per bar, shape (n_bars,), as fractions.
        periods_per_year: bars in a year.
    """
    return 1.0 - probabilistic_sharpe_ratio(track_record(returns), limit / math.sqrt(periods_per_year))


def judge(performance: Performance, rules: WatchRules, limit: float) -> tuple[HealthFinding, str]:
    """Finding and the reason in words; an unmeasurable performance is neither good nor bad."""
    if not (performance.bars >= rules.min_bars and performance.trades >= rules.min_trades):
        return HealthFinding.TOO_EARLY, (
            f"{performance.bars:,} new bars and {performance.trades} closed trades are too few: "
            f"{rules.min_bars} and {rules.min_trades} are needed"
        )
    if performance.sharpe_ratio is None or performance.confidence is None:
        return (
            HealthFinding.UNMEASURABLE,
            "the Sharpe ratio cannot be measured: the returns are empty or never vary",
        )
    observed = f"Sharpe ratio {performance.sharpe_ratio:.2f}"
    if performance.sharpe_ratio >= limit:
        return HealthFinding.HOLDS, f"{observed} is not below {limit:g}"
    probability = f"{performance.confidence:.0%}"
    below = f"{observed} is below {limit:g}, and the true ratio with a probability of {probability}"
    if not performance.confidence >= rules.confidence:
        return HealthFinding.UNSURE, f"{below}: {rules.confidence:.0%} are needed"
    return HealthFinding.DEGRADED, below


def due_retrains(
    model_id: str,
    performance: Performance,
    finding: HealthFinding,
    drift: Drift | None,
    rules: WatchRules,
) -> Iterator[DueRetrain]:
    """Retrains to request for degraded performance and for drift."""
    if finding is HealthFinding.DEGRADED:
        observed = Observation(sharpe_ratio=performance.sharpe_ratio)
        yield DueRetrain(model_id, TriggerReason.PERFORMANCE_DEGRADED, observed)
    if drift is not None and drift.score > rules.drift_score:
        yield DueRetrain(model_id, TriggerReason.DRIFT_DETECTED, Observation())
