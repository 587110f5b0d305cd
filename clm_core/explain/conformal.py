"""Adaptive conformal intervals of forecasts (Gibbs & Candes 2021, Adaptive conformal inference under
distribution shift).

The interval of a bar reaches as far from the forecast as a quantile of the newest errors with a known
outcome, in units of the bar's volatility (locally weighted: Lei et al. 2018). The level of the quantile
follows the intervals issued: after an outcome outside, the next intervals are wider, after an outcome inside
narrower. So the share of outcomes inside tends to the stated level whatever the market does, while a fixed
quantile keeps the width of earlier times. No interval sees an outcome after the bar of the forecast.
"""

import math
from bisect import bisect_left, insort
from collections import deque

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Floats

COVERAGE = 0.9
RATE = 0.005
"""Change of the level after an outcome, as in the source, for outcomes without overlap. Divided by the root
of the horizon: overlapping outcomes are outside together, and whole steps would end in infinite intervals."""
WINDOW = 1000
"""Newest errors with a known outcome behind a quantile."""
MIN_ERRORS = 100
"""Errors with a known outcome before the first interval."""


def half_widths(
    errors: Floats, known: NDArray[np.int64], horizon: float = 1.0, coverage: float = COVERAGE
) -> Floats:
    """Half width of the interval of each forecast, shape (n,).

    Args:
        errors: absolute errors in units of the volatility at the forecast, shape (n,); NaN without an
            outcome.
        known: row of the bar with which the outcome is known, shape (n,).
        horizon: mean number of bars of the outcomes, at least 1.
        coverage: share of outcomes meant to be inside, 0..1 exclusive.

    Returns:
        NaN before `MIN_ERRORS` outcomes; infinite while too many outcomes have been outside for any quantile.
    """
    finite = np.flatnonzero(~np.isnan(errors))
    order = finite[np.argsort(known[finite], kind="stable")]
    # lists: reading an array item by item takes longer than all the rest
    ends, rows, sizes = known[order].tolist(), order.tolist(), errors[order].tolist()
    widths = [math.nan] * len(errors)
    tail = _Tail(1.0 - coverage, RATE / math.sqrt(horizon))
    added = 0
    for row in range(len(errors)):
        while added < len(ends) and ends[added] <= row:
            tail.add(sizes[added], widths[rows[added]])
            added += 1
        widths[row] = tail.width
    return np.array(widths)


class _Tail:
    """Newest errors in order of size, with the current level."""

    def __init__(self, miss: float, rate: float) -> None:
        self._miss = miss
        self._rate = rate
        self._level = miss
        self._newest = deque[float]()
        self._sorted = list[float]()

    def add(self, error: float, width: float) -> None:
        """
        Args:
            width: interval issued for the forecast; NaN for none.
        """
        if not math.isnan(width):
            self._level += self._rate * (self._miss - (error > width))
        insort(self._sorted, error)
        self._newest.append(error)
        if len(self._newest) > WINDOW:
            oldest = self._newest.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]

    @property
    def width(self) -> float:
        count = len(self._sorted)
        if count < MIN_ERRORS:
            return math.nan
        rank = math.ceil((count + 1) * (1.0 - self._level))
        if rank > count:
            return math.inf
        return self._sorted[rank - 1] if rank > 0 else 0.0
