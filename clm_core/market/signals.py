"""Positions from signals held over a horizon, for models that predict a fixed number of bars ahead, and the
accuracy of their directions."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.market.bars import Bars, Floats


def hold_signals(signals: NDArray[np.int64], bars: Bars, horizon: int) -> Floats:
    """Mean of the last `horizon` signals within each unbroken stretch of bars.

    Sums are of whole numbers, so a position does not depend on the length of the history before the bar.

    Args:
        signals: -1, 0 or 1 for each bar, shape (n_bars,).
        horizon: bars over which each signal is held.

    Returns:
        Positions, shape (n_bars,), in [-1, 1]; signals before the start of a stretch count as 0.
    """
    positions = np.zeros(len(signals))
    for rows in bars.stretches():
        total = np.cumsum(signals[rows])
        total[horizon:] -= total[:-horizon].copy()
        positions[rows] = total / horizon
    return positions


def hold_convictions(signals: Floats, bars: Bars, horizon: int) -> Floats:
    """Mean of the last `horizon` signals within each unbroken stretch of bars, for signals of any size.

    Each mean is summed anew from its oldest signal on, so a position is the same to the bit for every history
    before.

    Args:
        signals: in [-1, 1], shape (n_bars,).
        horizon: bars over which each signal is held.

    Returns:
        Positions, shape (n_bars,), in [-1, 1]; signals before the start of a stretch count as 0.
    """
    positions = np.zeros(len(signals))
    for rows in bars.stretches():
        positions[rows] = _trailing_means(signals[rows], horizon)
    # rounding may bring a mean beyond the signals
    return np.clip(positions, -1.0, 1.0)


_BLOCK = 2048
"""Rows of trailing means computed side by side: the sums stay in the cache of a processor."""


def centred(scores: Floats, bars: Bars, window: int) -> Floats:
    """Scores less their mean over the last `window` bars of the unbroken stretch, the bar's own included.

    Each mean is summed anew from its oldest score on, so a result is the same to the bit for every history
    before the window.

    Args:
        scores: shape (n_bars,); NaN counts in no mean and stays NaN.
        window: bars; at the start of a stretch the mean is that of the bars there are.
    """
    result = np.empty(len(scores))
    for rows in bars.stretches():
        result[rows] = _less_trailing_means(scores[rows], window)
    return result


@njit(cache=True, nogil=True, error_model="numpy")
def _less_trailing_means(values: Floats, window: int) -> Floats:
    n = len(values)
    addends = np.empty(n)
    counts = np.empty(n, np.int64)
    count = 0
    # a loop is compiled in a tenth of the time of array expressions
    for row in range(n):
        is_known = not np.isnan(values[row])
        # adding 0 for an unknown value leaves a sum as it is, to the bit
        addends[row] = values[row] if is_known else 0.0
        count += is_known
        counts[row] = count
    differences = np.empty(n)
    sums = np.zeros(n)
    for first in range(0, n, _BLOCK):
        end = min(first + _BLOCK, n)
        # oldest value first in each row; the rows of a block side by side, which a processor adds at once
        back = min(window, end) - 1
        # four values at a time: a sum is loaded and stored once for the four
        while back >= 3:
            low = min(max(first, back), end)
            # the first rows, with fewer values
            for row in range(max(first, back - 3), low):
                for age in range(row, back - 4, -1):
                    sums[row] += addends[row - age]
            own = sums[low:end]
            oldest = addends[low - back : end - back]
            second = addends[low - back + 1 : end - back + 1]
            third = addends[low - back + 2 : end - back + 2]
            fourth = addends[low - back + 3 : end - back + 3]
            for row in range(len(own)):
                own[row] = own[row] + oldest[row] + second[row] + third[row] + fourth[row]
            back -= 4
        while back >= 0:
            low = max(first, back)
            own = sums[low:end]
            oldest = addends[low - back : end - back]
            for row in range(len(own)):
                own[row] += oldest[row]
            back -= 1
    for row in range(n):
        if np.isnan(values[row]):
            differences[row] = np.nan
        else:
            before = counts[row - window] if row >= window else 0
            differences[row] = values[row] - sums[row] / (counts[row] - before)
    return differences


@njit(cache=True, nogil=True, error_model="numpy")
def _trailing_means(values: Floats, window: int) -> Floats:
    means = np.empty(len(values))
    for row in range(len(values)):
        total = 0.0
        for back in range(min(window - 1, row), -1, -1):
            total += values[row - back]
        means[row] = total / window
    return means


def accuracy(predicted: Floats, actual: Floats) -> float:
    """Share of the moves with the predicted direction; 0.5 without a move.

    A prediction of exactly 0 is half right, and a move of exactly 0 is no move: mirrored predictions of
    mirrored moves have the same accuracy.

    Args:
        predicted: predicted moves, positive for a rise, shape (n,).
        actual: observed moves, shape (n,).
    """
    moved = actual != 0
    if not moved.any():
        return 0.5
    right = np.sign(predicted[moved]) == np.sign(actual[moved])
    return float(np.mean(np.where(predicted[moved] == 0, 0.5, right)))
