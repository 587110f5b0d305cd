"""Adaptive conformal intervals of forecasts (Gibbs & Candes 2021, Adaptive conformal inference under
distribution shift).

The interval of a bar reaches as far from the forecast as a quantile of the newest errors with a known
outcome, in units of the bar's volatility (locally weighted: Lei et al. 2018). The level of the quantile
follows the intervals issued: after an outcome outside, the next intervals are wider, after an outcome inside
narrower. So the share of outcomes inside tends to the stated level whatever the market does, while a fixed
quantile keeps the width of earlier times. No interval sees an outcome after the bar of the forecast.
"""

import math

import numpy as np
from numba import njit
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
    rows = finite[np.argsort(known[finite], kind="stable")]
    sizes = errors[rows]
    by_size = np.argsort(sizes, kind="stable")
    places = np.empty(len(rows), np.int64)
    places[by_size] = np.arange(len(rows))
    rate = RATE / math.sqrt(horizon)
    ends = known[rows].astype(np.int64)
    return _widths(ends, rows, places, sizes[by_size], len(errors), 1.0 - coverage, rate)


@njit(cache=True, nogil=True, error_model="numpy")
def _widths(
    ends: NDArray[np.int64],
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    ascending: Floats,
    n: int,
    miss: float,
    rate: float,
) -> Floats:
    """Half width of the interval of each forecast, shape (n,), from the errors in the order of the outcomes.

    Args:
        ends: row of the bar with which an outcome is known, shape (n_known,).
        rows: row of the forecast, shape (n_known,).
        places: place of the error in `ascending`, shape (n_known,).
        ascending: all errors in order of size, shape (n_known,).
        n: number of forecasts.
        miss: share of outcomes meant to be outside.
        rate: change of the level after an outcome.
    """
    widths = np.full(n, np.nan)
    in_window = np.zeros(len(ascending), np.bool_)
    level = miss
    added = 0
    count = 0
    # the quantile moves by few places from forecast to forecast
    place = 0
    smaller = 0
    for row in range(n):
        while added < len(ends) and ends[added] <= row:
            own = places[added]
            issued = widths[rows[added]]
            if not math.isnan(issued):
                level += rate * (miss - (1.0 if ascending[own] > issued else 0.0))
            in_window[own] = True
            smaller += own < place
            if added < WINDOW:
                count += 1
            else:
                oldest = places[added - WINDOW]
                in_window[oldest] = False
                smaller -= oldest < place
            added += 1
        if count < MIN_ERRORS:
            continue
        rank = math.ceil((count + 1) * (1.0 - level))
        if rank > count:
            widths[row] = np.inf
        elif rank <= 0:
            widths[row] = 0.0
        else:
            while smaller >= rank:
                place -= 1
                smaller -= in_window[place]
            while smaller < rank - 1 or not in_window[place]:
                smaller += in_window[place]
                place += 1
            widths[row] = ascending[place]
    return widths
