"""Positions from signals held over a horizon, for models that predict a fixed number of bars ahead, and the
accuracy of their directions."""

import numpy as np
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
