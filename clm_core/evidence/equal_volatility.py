"""Returns at equal volatility: a comparison of skill, not of size.

Twice the positions earn twice the mean return at the same Sharpe ratio: a comparison of mean returns rewards
leverage. Here each return is divided by the volatility of the earlier returns. The divisor is known before
the return, as a sequential test needs, and forgets, so a strategy gains nothing by raising the size of
positions after a quiet start.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.evidence.paired import PairedRecord, extend
from clm_core.evidence.sequential import DAY
from clm_core.market.bars import Floats

Mask = NDArray[np.bool_]
HALF_LIFE = 500
"""Bars after which a squared return has half its weight in the volatility."""
WARM_UP = 50
"""Bars before the first scaled return: the volatility of fewer is too uncertain."""
FLOOR = 0.5
"""Least volatility, as a share of the volatility over all bars so far: after months without a position the
first returns would otherwise decide the comparison."""
ANNUAL_VOLATILITY = 0.10
"""Volatility of the scaled returns a year."""


def trailing_volatility(returns: Floats) -> Floats:
    """Volatility before each bar, a fraction a bar, shape (n_bars,).

    The root of the exponentially weighted mean of the earlier squared returns, and at least `FLOOR` of the
    root of the plain mean; NaN for the first `WARM_UP` bars and before the first return other than 0.
    """
    squares = pd.Series(np.square(returns))
    weighted = squares.ewm(halflife=HALF_LIFE).mean()
    plain = squares.expanding().mean()
    variance = np.maximum(weighted.to_numpy(), FLOOR * FLOOR * plain.to_numpy())
    volatility = np.concatenate([[np.nan], np.sqrt(variance[:-1])])
    known = (np.arange(len(returns)) >= WARM_UP) & (volatility > 0.0)
    return np.asarray(np.where(known, volatility, np.nan), dtype=np.float64)


def at_equal_volatility(returns: Floats, periods_per_year: float) -> Floats:
    """Returns at `ANNUAL_VOLATILITY`, shape (n_bars,); NaN where the volatility is not known.

    Args:
        returns: returns of a bar, as fractions, shape (n_bars,).
    """
    return returns * (ANNUAL_VOLATILITY / math.sqrt(periods_per_year)) / trailing_volatility(returns)


def compare(
    ours: Floats, theirs: Floats, periods_per_year: float, counted: Mask | None = None
) -> PairedRecord:
    """Differences of two strategies' returns on the same bars, each at `ANNUAL_VOLATILITY`.

    Args:
        ours: returns of a bar, as fractions, shape (n_bars,).
        theirs: returns of the other strategy, shape (n_bars,).
        counted: True for bars to count, shape (n_bars,); other bars only tell the volatility.
    """
    ours, theirs = (at_equal_volatility(each, periods_per_year) for each in (ours, theirs))
    known = np.isfinite(ours) & np.isfinite(theirs)
    if counted is not None:
        known &= counted
    return extend(PairedRecord(), ours[known], theirs[known])


def compare_days(
    time: NDArray[np.int64], bar: int, ours: Floats, theirs: Floats, periods_per_year: float, counted: Mask
) -> PairedRecord:
    """Differences of the complete UTC days; see `days_at_equal_volatility`."""
    return extend(
        PairedRecord(), *days_at_equal_volatility(time, bar, ours, theirs, periods_per_year, counted)
    )


def days_at_equal_volatility(
    time: NDArray[np.int64], bar: int, ours: Floats, theirs: Floats, periods_per_year: float, counted: Mask
) -> tuple[Floats, Floats]:
    """Returns of both strategies on the complete UTC days, each the sum over its counted bars at
    `ANNUAL_VOLATILITY`, oldest first, shape (n_days,) each; see `compare`.

    Bars that do not count tell not even the volatility. A day without a counted bar is left out: neither a
    zero nor a look.

    Args:
        time: bar-open times, nanoseconds since 1970-01-01 UTC, ascending, shape (n_bars,).
        bar: length of a bar in nanoseconds.
    """
    if not len(time):
        return np.zeros(0), np.zeros(0)
    unfinished = time[-1] + bar < (time[-1] // DAY + 1) * DAY
    complete = time // DAY < time[-1] // DAY + (0 if unfinished else 1)
    rows = counted & complete
    scaled = [at_equal_volatility(each[rows], periods_per_year) for each in (ours, theirs)]
    known = np.isfinite(scaled[0]) & np.isfinite(scaled[1])
    days, of_day = np.unique(time[rows][known] // DAY, return_inverse=True)
    totals = np.zeros((2, len(days)))
    for row, each in enumerate(scaled):
        np.add.at(totals[row], of_day, each[known])
    return totals[0], totals[1]
