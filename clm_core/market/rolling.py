"""Compiled loops over bars, for exact single-pass computations missing in NumPy and TA-Lib."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.market.bars import Floats


@njit(cache=True, nogil=True, error_model="numpy")
def gap_and_deviation(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Distance of each value to the mean of the trailing window, and the standard deviation of the window.

    The series is cut every `window` rows, so that each trailing window holds exactly one cut. Sums from the
    cut backwards and forwards, both relative to the value at the cut, give the moments in a fixed number of
    steps. No sum outlives a window: rounding errors do not accumulate, and a constant window gives exactly
    0.0 for both results.

    Args:
        values: finite, shape (n,).
        window: rows in a window, the current one included; at least 1.

    Returns:
        Two arrays of shape (n,), NaN in the first `window - 1` rows: value minus mean, and population
        standard deviation.
    """
    n = len(values)
    gap = np.empty(n)
    deviation = np.empty(n)
    gap[: window - 1] = np.nan
    deviation[: window - 1] = np.nan
    # element k: the sum, and the sum of squares, of the older and of the newer part of the window that ends
    # k rows after the cut
    older = np.empty(window)
    older_squares = np.empty(window)
    newer = np.empty(window)
    newer_squares = np.empty(window)
    share = 1.0 / window
    for cut in range(window - 1, n, window):
        pivot = values[cut]
        size = min(window, n - cut)
        total = squares = 0.0
        for k in range(window):
            difference = values[cut - k] - pivot
            total += difference
            squares += difference * difference
            older[window - 1 - k] = total
            older_squares[window - 1 - k] = squares
        total = squares = 0.0
        for k in range(size):
            difference = values[cut + k] - pivot
            total += difference
            squares += difference * difference
            newer[k] = total
            newer_squares[k] = squares
        for k in range(size):
            mean = (older[k] + newer[k]) * share
            variance = (older_squares[k] + newer_squares[k]) * share - mean * mean
            gap[cut + k] = values[cut + k] - pivot - mean
            deviation[cut + k] = np.sqrt(max(variance, 0.0))
    return gap, deviation


@njit(cache=True, nogil=True, error_model="numpy")
def ratio(numerator: Floats, denominator: Floats, undefined: float) -> Floats:
    """Element-wise quotient, shape (n,); `undefined` for denominators that are not positive."""
    quotient = np.empty(len(numerator))
    for row in range(len(numerator)):
        quotient[row] = numerator[row] / denominator[row] if denominator[row] > 0.0 else undefined
    return quotient


@njit(cache=True, nogil=True, error_model="numpy")
def first_touch(
    high: Floats, low: Floats, take: Floats, stop: Floats, last: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64]]:
    """First of two prices reached by the bars after each row.

    Args:
        high, low: prices of the bars, shape (n,).
        take, stop: upper and lower price of each row, shape (n,); NaN is never reached.
        last: last row to search for each row, shape (n,).

    Returns:
        Values, shape (n,): 1.0 for the upper price, -1.0 for the lower price or both in one bar, 0.0 for
        neither; and the row of the first touch, or `last`, shape (n,).
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
