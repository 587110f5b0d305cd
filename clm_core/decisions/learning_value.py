"""Difference of production and the frozen first champion on the same bars, with intervals."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clm_core.decisions.shadow import Mask, min_common_bars
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.evidence.bootstrap import total_return_interval
from clm_core.evidence.equal_volatility import ANNUAL_VOLATILITY, compare_days
from clm_core.evidence.paired import bounds
from clm_core.evidence.sequential import days_per_year
from clm_core.market.bars import Floats

CONFIDENCE = 0.95
"""Coverage of both intervals."""
RESAMPLES = 2000
SEED = 0
"""Seed of the bootstrap: the same returns give the same interval."""
TUNED_FOR = 250
"""Number of days at which the interval of the Sharpe difference is tightest."""


@dataclass(frozen=True)
class LearningFigures:
    """Figures of the counted bars; differences are None where not measurable."""

    production_return: float
    frozen_return: float
    return_difference: IntervalEstimate | None
    sharpe_difference: IntervalEstimate | None


def measure_learning(
    time: NDArray[np.int64],
    bar: int,
    production: Floats,
    frozen: Floats,
    counted: Mask,
    periods_per_year: float,
) -> LearningFigures | None:
    """Total returns and differences on the counted bars; None without a bar.

    The mean difference of the daily returns at equal volatility, times the days of a year and over the annual
    volatility, is a difference of Sharpe ratios; its bounds hold at every look.

    Args:
        time: bar-open times, nanoseconds since 1970-01-01 UTC, shape (n_bars,).
        bar: length of a bar in nanoseconds.
        production: returns of the production versions as fractions, shape (n_bars,).
        frozen: returns of the frozen champion, shape (n_bars,).
        counted: True for bars to count, shape (n_bars,).
    """
    if not counted.any():
        return None
    days = compare_days(time, bar, production, frozen, periods_per_year, counted)
    daily = bounds(days, (1.0 - CONFIDENCE) / 2.0, TUNED_FOR)
    # NaN where fewer than two days have bars
    scale = days_per_year(time) / ANNUAL_VOLATILITY
    ours = production[counted]
    theirs = frozen[counted]
    compounded = None
    if len(ours) >= min_common_bars(periods_per_year):
        rng = np.random.default_rng(SEED)
        interval = total_return_interval(ours, theirs, CONFIDENCE, RESAMPLES, rng)
        compounded = _estimate(interval.estimate, interval.low, interval.high)
    return LearningFigures(
        production_return=float(np.prod(1.0 + ours) - 1.0),
        frozen_return=float(np.prod(1.0 + theirs) - 1.0),
        return_difference=compounded,
        sharpe_difference=_estimate(daily.mean * scale, daily.low * scale, daily.high * scale),
    )


def _estimate(value: float, low: float, high: float) -> IntervalEstimate | None:
    if not all(math.isfinite(each) for each in (value, low, high)):
        return None
    return IntervalEstimate(value=value, low=low, high=high)
