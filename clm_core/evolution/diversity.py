"""Choice of strategies with different returns, for an ensemble."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Floats

MAX_CORRELATION = 0.7
"""Largest correlation of the daily returns with a strategy chosen before, as long as there are others."""


def decorrelated(daily: NDArray[np.float32], merits: Sequence[float], count: int) -> list[int]:
    """Up to `count` strategies, by falling merit, without close relatives of a better strategy.

    The next choice has the highest merit of the strategies correlated by at most `MAX_CORRELATION` with each
    choice before; where there is none, the lowest of the largest correlations. Strategies with constant or
    equal returns are left out.

    Args:
        daily: daily returns on the same days, shape (n, n_days).
        merits: greater is better, shape (n,).
        count: number of strategies, at least 1.

    Returns:
        Rows, in the order of the choice.
    """
    correlations = _correlations(np.asarray(daily, np.float64))
    left = [row for row in range(len(daily)) if np.isfinite(correlations[row, row])]
    chosen: list[int] = []
    while left and len(chosen) < count:
        nearest = {row: max((correlations[row, other] for other in chosen), default=-1.0) for row in left}
        free = [row for row in left if nearest[row] <= MAX_CORRELATION]
        best = max(free, key=lambda row: merits[row]) if free else min(left, key=lambda row: nearest[row])
        if nearest[best] > 1.0 - 1e-6:
            break
        chosen.append(best)
        left.remove(best)
    return chosen


def _correlations(daily: Floats) -> Floats:
    """Correlations of the rows, shape (n, n); NaN for a row with constant returns."""
    centred = daily - daily.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = centred / np.where(lengths > 1e-12, lengths, np.nan)[:, None]
    return np.asarray(directions @ directions.T)
