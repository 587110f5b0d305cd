"""Weights of labelled rows: overlapping labels tell less than labels apart, old labels less than new ones,
rows of other regimes less than those of the regime trained towards."""

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Floats

REGIME_WEIGHT = 4.0
"""Weight of a row of the regime trained towards, in rows of other regimes. With a third of the rows the
regime has two thirds of the weight, and all rows tell as much as two thirds of them with equal weights."""


def average_uniqueness(rows: NDArray[np.int64], end: NDArray[np.int64]) -> Floats:
    """Average uniqueness of labels (Lopez de Prado 2018, chapter 4): 1 for a label without overlap.

    A label decided at row i spans the bars i + 1 to its end. The uniqueness of a label at a bar is
    1 / (number of labels that span the bar), and the average over the span is the label's weight. The sum of
    the weights counts how many labels without overlap tell as much.

    Args:
        rows: rows of the labels, ascending, shape (n,).
        end: row of the last bar each label uses, after its row, shape (n,).

    Returns:
        Weights in (0, 1], shape (n,), computed in linear time.
    """
    if not len(rows):
        return np.empty(0)
    first = rows[0] + 1
    begun = rows + 1 - first
    ended = end + 1 - first
    changes = np.zeros(int(ended.max()) + 1, dtype=np.int64)
    np.add.at(changes, begun, 1)
    np.add.at(changes, ended, -1)
    labels = np.cumsum(changes)[:-1]
    shares = np.divide(1.0, labels, out=np.zeros(len(labels)), where=labels > 0)
    total = np.concatenate([[0.0], np.cumsum(shares)])
    return np.asarray((total[ended] - total[begun]) / (ended - begun))


def age_weights(rows: NDArray[np.int64], half_life: float) -> Floats:
    """Exponential weights by age: 1 for the newest row, 1/2 for a row `half_life` bars older.

    Args:
        rows: ascending, shape (n,).
        half_life: bars, above 0.
    """
    return np.asarray(0.5 ** ((rows[-1] - rows) / half_life)) if len(rows) else np.empty(0)


def regime_weights(regime: NDArray[np.int8], state: int) -> Floats:
    """`REGIME_WEIGHT` for the rows of a state, 1 for the others, those of an unknown regime included.

    Args:
        regime: state known at each row, shape (n,).
    """
    return np.where(regime == state, REGIME_WEIGHT, 1.0)
