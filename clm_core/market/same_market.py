"""Series of the same market found by content: by the daily log returns, under any name.

BTCUSDT and another venue's BTCUSD correlate by 0.97, BTC and ETH by 0.81. The absolute value counts: an
inverted quote is the same market.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Bars, Floats

MIN_CORRELATION = 0.9
"""Smallest absolute correlation of the daily log returns of one market."""
MIN_COMMON_DAYS = 60
"""Smallest number of common days: fewer correlate by chance."""
DAY_NS = 86_400_000_000_000


@dataclass(frozen=True, eq=False)
class DailyReturns:
    """Log returns from the last close of a day with bars to that of the next, days in UTC."""

    days: NDArray[np.int64]
    """Days since 1970-01-01 of the later close, ascending, shape (n_days,)."""
    returns: Floats
    """Shape (n_days,)."""


@dataclass(frozen=True)
class Likeness:
    """Correlation of two series over the common days."""

    correlation: float
    """NaN for fewer than two common days, or a constant series."""
    days: int

    @property
    def is_same_market(self) -> bool:
        # Written as `>=` so that NaN is no match.
        return self.days >= MIN_COMMON_DAYS and abs(self.correlation) >= MIN_CORRELATION


def daily_log_returns(bars: Bars) -> DailyReturns:
    """Daily log returns of the closes; empty for bars of one day or less."""
    days = bars.time // DAY_NS
    last = np.append(np.flatnonzero(np.diff(days)), len(days) - 1) if len(days) else np.empty(0, np.int64)
    return DailyReturns(days[last][1:], np.diff(np.log(bars.close[last])))


def likeness(first: DailyReturns, second: DailyReturns) -> Likeness:
    """Correlation over the common days."""
    _, here, there = np.intersect1d(first.days, second.days, assume_unique=True, return_indices=True)
    if len(here) < 2:
        return Likeness(math.nan, len(here))
    ours = first.returns[here] - first.returns[here].mean()
    theirs = second.returns[there] - second.returns[there].mean()
    size = math.sqrt(float(ours @ ours) * float(theirs @ theirs))
    return Likeness(float(ours @ theirs) / size if size > 0.0 else math.nan, len(here))
