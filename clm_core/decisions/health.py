"""Performance of a production version on bars newer than the training: degraded or not, with reasons.

An observed Sharpe ratio below the limit is no proof: over 90 days the standard error is 2, whatever the
number of bars. A probability looked at every day is passed some day by luck. So a sequential test decides
(`evidence.sequential`), with a declared rate of false alarms: 1 % a quarter at a true Sharpe ratio of 2. The
Sharpe ratio of the promotion plays no part: the highest of several results flatters. The test runs on over
successive versions of a recipe, each bar once, so that frequent promotions do not blind it.

`python -m benchmarks.watch_alarm` gives the rates at other true ratios, and the time to detect.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.decisions.staleness import DueRetrain
from clm_core.domain.drift_history import PREDICTION
from clm_core.domain.measures import MIN_BARS
from clm_core.domain.triggers import Observation
from clm_core.domain.vocabulary import TriggerReason
from clm_core.domain.watch_rules import WatchRules
from clm_core.evidence.forecast_errors import ErrorDrift
from clm_core.evidence.sequential import FIRST_LOOK, log_odds_of_loss
from clm_core.market.bars import Floats
from clm_core.market.drift import Drift

HEALTHY_SHARPE = 2.0
"""Annualised Sharpe ratio at which the rate of false alarms is declared."""
LOSING_SHARPE = -2.0
"""Annualised Sharpe ratio that the test is tuned to find: losses as fast as a healthy version's gains."""
ALARM = 5.4
"""Log-odds of the statistic at which an alarm is raised: at most one alarm in 100 quarters under watch at the
healthy ratio, for normal returns, returns with the tails of t(3), and GARCH returns."""


FORECAST_ERRORS = "forecast errors"
"""Name of the drift of the forecasts' errors."""
MAX_NAMES = 200
"""Maximum number of names in the evidence of a request."""


class Alarm(BaseModel):
    """State of the sequential test after the newest complete day."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    days: int = 0
    """Complete days under watch: of the recipe's forward record, then of the version's own bars."""
    earlier_days: int = 0
    """Number of the days of earlier versions of the recipe."""
    statistic: float | None = None
    """Log-odds of losing; None before the first look."""
    raised_on_day: int | None = None
    """Number of the day on which the statistic first reached `ALARM`, from 1; None: never."""


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
    alarm: Alarm = Alarm()
    """Test over the forward record of the recipe and all bars since the training."""


@dataclass(frozen=True)
class DriftFindings:
    """Drift of a production version on the bars since the training; None where not measurable."""

    features: Drift | None = None
    predictions: Drift | None = None
    """Drift of the version's positions against those of the walk-forward."""
    errors: ErrorDrift | None = None
    members_errors: tuple[str, ...] = ()
    """Members of a pool with changed errors of the forecasts."""


class HealthFinding(StrEnum):
    DEGRADED = "degraded"
    """The sequential test has raised its alarm."""
    HOLDS = "holds"
    UNSURE = "unsure"
    """Below the limit, but within the range of chance."""
    TOO_EARLY = "too_early"
    UNMEASURABLE = "unmeasurable"


def alarm_of(daily: Floats, days_per_year: float, earlier_days: int = 0) -> Alarm:
    """State of the test on the returns of complete days.

    An alarm of an earlier version ended with its replacement: the test starts anew on the day after.

    Args:
        daily: returns as fractions, oldest first, shape (n_days,).
        days_per_year: days with returns in a year.
        earlier_days: number of the days, the oldest, of earlier versions of the recipe.
    """
    days = len(daily)
    earlier = min(earlier_days, days)
    if days < FIRST_LOOK or not math.isfinite(days_per_year):
        return Alarm(days=days, earlier_days=earlier)
    statistic = log_odds_of_loss(daily, HEALTHY_SHARPE, LOSING_SHARPE, days_per_year, ALARM, earlier)
    raised = earlier + np.flatnonzero(statistic[earlier:] >= ALARM)
    return Alarm(
        days=days,
        earlier_days=earlier,
        statistic=float(statistic[-1]),
        raised_on_day=int(raised[0]) + 1 if len(raised) else None,
    )


def judge(
    performance: Performance, rules: WatchRules, limit: float, window_bars: int
) -> tuple[HealthFinding, str]:
    """Finding and the reason in words; an unmeasurable performance is neither good nor bad.

    Args:
        limit: annualised Sharpe ratio below which a version is not called healthy; no cause of an alarm.
        window_bars: bars of the market within `window_days`; with fewer than `min_bars`, as of daily bars,
            all of them are enough.
    """
    alarm = performance.alarm
    if alarm.raised_on_day is not None:
        return HealthFinding.DEGRADED, (
            f"the sequential test raised its alarm on day {alarm.raised_on_day} of {alarm.days}"
            f"{_of_record(alarm)}: a version "
            f"with a Sharpe ratio of {HEALTHY_SHARPE:g} does so in one quarter of a hundred"
        )
    min_bars = max(min(rules.min_bars, window_bars), MIN_BARS)
    if not (performance.bars >= min_bars and performance.trades >= rules.min_trades):
        return HealthFinding.TOO_EARLY, (
            f"{performance.bars:,} new bars and {performance.trades} closed trades are too few: "
            f"{min_bars} and {rules.min_trades} are needed"
        )
    if performance.sharpe_ratio is None:
        return (
            HealthFinding.UNMEASURABLE,
            "the Sharpe ratio cannot be measured: the returns are empty or never vary",
        )
    observed = f"Sharpe ratio {performance.sharpe_ratio:.2f}"
    if performance.sharpe_ratio >= limit:
        return HealthFinding.HOLDS, f"{observed} is not below {limit:g}"
    test = "the sequential test has not begun"
    if alarm.statistic is not None:
        test = f"the sequential test stands at {alarm.statistic:.1f} of {ALARM:g}"
    return HealthFinding.UNSURE, f"{observed} is below {limit:g}, and chance may explain it: {test}"


def _of_record(alarm: Alarm) -> str:
    if not alarm.earlier_days:
        return ""
    return f" of the recipe's record ({alarm.earlier_days} with earlier versions)"


def due_retrains(
    model_id: str,
    performance: Performance,
    finding: HealthFinding,
    drifts: DriftFindings,
    rules: WatchRules,
) -> Iterator[DueRetrain]:
    """Retrains to request for degraded performance and for drift, with the evidence."""
    if finding is HealthFinding.DEGRADED:
        observed = Observation(sharpe_ratio=performance.sharpe_ratio, alarm=True)
        yield DueRetrain(model_id, TriggerReason.PERFORMANCE_DEGRADED, observed)
    drifted = tuple(_drifted(drifts, rules.drift_score))
    if drifted:
        scores = [each.score for each in (drifts.features, drifts.predictions) if each is not None]
        observed = Observation(drift_score=max(scores, default=None), drifted=drifted[:MAX_NAMES])
        yield DueRetrain(model_id, TriggerReason.DRIFT_DETECTED, observed)


def _drifted(drifts: DriftFindings, limit: float) -> Iterator[str]:
    """Names of what drifted far enough for a retrain."""
    features = drifts.features
    predictions = drifts.predictions
    errors = drifts.errors
    if features is not None and features.score > limit:
        yield from features.features
    if predictions is not None and predictions.score > limit:
        yield PREDICTION
    if errors is not None and errors.changed_at is not None:
        yield FORECAST_ERRORS
    for symbol in drifts.members_errors:
        yield f"{symbol}/{FORECAST_ERRORS}"
