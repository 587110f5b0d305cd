"""Compiled loops over bars, for exact single-pass computations missing in NumPy and TA-Lib."""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.market.bars import Floats

LN_2 = math.log(2.0)


def read_only(values: Floats) -> Floats:
    """Read-only view, for arguments of compiled loops.

    numba compiles separate versions for writable and read-only arrays, with possibly different orders of
    summation; with read-only arrays throughout, equal values always give equal results.
    """
    view = values.view()
    view.setflags(write=False)
    return view


@njit(cache=True, nogil=True, error_model="numpy")
def gap_and_deviation(
    values: Floats,
    window: int,
    numbers: NDArray[np.int64] | None = None,
    octaves: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Distance of each value to the mean of the trailing window, and the standard deviation of the window.

    The series is cut wherever `numbers // window` changes, so that each trailing window holds a cut. Sums
    from the last cut backwards and forwards, both relative to the value at the cut, give the moments in a
    fixed number of steps. No sum outlives a window: rounding errors do not accumulate, and a constant window
    gives exactly 0.0 for both results. With the numbers of the bars on the clock, the results of a row are
    the same to the bit for every start of the series before the window.

    Args:
        values: finite, shape (n,).
        window: rows in a window, the current one included; at least 1.
        numbers: strictly increasing, shape (n,); by default 1, 2, ..., which cuts after each full window.
        octaves: whole numbers times log 2 to add to the values, shape (n,), None for none. Apart from the
            values, they cost no digits of a small difference.

    Returns:
        Two arrays of shape (n,), NaN in the first `window - 1` rows: value minus mean, and population
        standard deviation.
    """
    n = len(values)
    # of each row: its distance to the value at the cut, and the sums and sums of squares of the parts of its
    # window up to the cut and from the cut on
    distance = np.empty(n)
    older = np.empty(n)
    older_squares = np.empty(n)
    newer = np.empty(n)
    newer_squares = np.empty(n)
    n_rows = np.uint64(n)
    one = np.uint64(1)
    cut = window - 1 if numbers is None else 0
    while cut < n:
        end = min(cut + window, n)
        if numbers is not None:
            following = (numbers[cut] // window + 1) * window
            end = cut + 1
            while end < n and numbers[end] < following:
                end += 1
        pivot = values[cut]
        total = squares = 0.0
        # unsigned, so that the compiler need not count rows from the end
        oldest = np.uint64(cut)
        newest = np.uint64(cut + window - 1)
        for _ in range(min(window, cut + 1)):
            difference = values[oldest] - pivot
            if octaves is not None:
                difference += (octaves[oldest] - octaves[cut]) * LN_2
            total += difference
            squares += difference * difference
            if newest < n_rows:
                older[newest] = total
                older_squares[newest] = squares
            newest -= one
            oldest -= one
        total = squares = 0.0
        for at in range(np.uint64(cut), np.uint64(end)):
            difference = values[at] - pivot
            if octaves is not None:
                difference += (octaves[at] - octaves[cut]) * LN_2
            total += difference
            squares += difference * difference
            distance[at] = difference
            newer[at] = total
            newer_squares[at] = squares
        cut = end
    share = 1.0 / window
    deviation = older
    gap = newer
    for row in range(n):
        mean = (older[row] + newer[row]) * share
        variance = (older_squares[row] + newer_squares[row]) * share - mean * mean
        gap[row] = distance[row] - mean
        deviation[row] = np.sqrt(max(variance, 0.0))
    gap[: window - 1] = deviation[: window - 1] = np.nan
    return gap, deviation


@njit(cache=True, nogil=True, error_model="numpy")
def change_over(values: Floats, span: int, octaves: Floats | None = None) -> Floats:
    """Difference of each value to the value `span` rows before, shape (n,); 0.0 in the first `span` rows.

    Args:
        octaves: whole numbers times log 2 to add to the values, shape (n,), None for none.
    """
    change = np.empty(len(values))
    change[:span] = 0.0
    changed = change[span:]
    count = len(changed)
    later = values[span:]
    earlier = values[:count]
    for row in range(count):
        changed[row] = later[row] - earlier[row]
    if octaves is not None:
        later = octaves[span:]
        earlier = octaves[:count]
        for row in range(count):
            changed[row] += (later[row] - earlier[row]) * LN_2
    return change


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
