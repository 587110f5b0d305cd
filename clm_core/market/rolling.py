"""Compiled loops over bars: what neither NumPy nor TA-Lib does in one exact pass."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.market.bars import Floats


@njit(cache=True, nogil=True, error_model="numpy")
def gap_and_deviation(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Distance of each value to the mean of its trailing window, and the window's standard deviation.

    Every window is cut where a block of `window` rows ends; the sums to the left and to the right of the
    cut, both relative to the value at the cut, give its moments. No sum outlives its block, so that
    nothing drifts over long series, and a constant window gives exactly 0.0 twice.

    Args:
        values: finite, shape (n,).
        window: rows in a window, the current one included; at least 1.

    Returns:
        Two arrays of shape (n,), NaN in the first `window - 1` rows: value minus mean, and population
        standard deviation.
    """
    n = len(values)
    gap = np.full(n, np.nan)
    deviation = np.full(n, np.nan)
    older = np.empty(window)
    older_squares = np.empty(window)
    for cut in range(window - 1, n, window):
        pivot = values[cut]
        total = 0.0
        squares = 0.0
        for k in range(window):
            difference = values[cut - k] - pivot
            total += difference
            squares += difference * difference
            older[k] = total
            older_squares[k] = squares
        total = 0.0
        squares = 0.0
        for row in range(cut, min(cut + window, n)):
            difference = values[row] - pivot
            total += difference
            squares += difference * difference
            k = window - 1 - (row - cut)
            mean = (total + older[k]) / window
            gap[row] = difference - mean
            deviation[row] = np.sqrt(max((squares + older_squares[k]) / window - mean * mean, 0.0))
    return gap, deviation


@njit(cache=True, nogil=True, error_model="numpy")
def first_touch(
    high: Floats, low: Floats, take: Floats, stop: Floats, last: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64]]:
    """Which of two prices the bars after a row reach first.

    Args:
        high, low: prices, shape (n,).
        take, stop: upper and lower price each row waits for, shape (n,); NaN where it waits for none.
        last: last row each row waits for, shape (n,).

    Returns:
        Values, shape (n,): 1.0 the upper price, -1.0 the lower, or both in one bar, 0.0 neither; and the
        row in which it was reached, or the last one.
    """
    values = np.zeros(len(high))
    end = last.copy()
    for row in range(len(high)):
        for ahead in range(row + 1, last[row] + 1):
            if low[ahead] <= stop[row]:
                values[row] = -1.0
            elif high[ahead] >= take[row]:
                values[row] = 1.0
            else:
                continue
            end[row] = ahead
            break
    return values, end
