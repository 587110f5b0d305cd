"""Splits in time order: nothing a label used may lie in, or within the embargo of, what it is tested on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.errors import NotEnoughBars

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fold:
    """One step of a walk-forward."""

    train: Rows
    """Rows with a label, in time order, whose labels end before the test rows and the embargo."""
    test: slice
    """Contiguous rows after them."""


@dataclass(frozen=True, eq=False)
class Tail:
    """A training window with its end set apart, to tell when to stop fitting."""

    fit: Rows
    validation: Rows


def walk_forward(
    label_end: Rows, n_splits: int, test_bars: int, embargo: int, train_bars: int | None = None
) -> list[Fold]:
    """Train on the past, test on the `test_bars` that follow, move on: the last rows are each tested once.

    Args:
        label_end: `Labels.end`, shape (n_bars,); rows with -1 are never trained on.
        n_splits: folds; together they test the last `n_splits * test_bars` rows.
        test_bars: rows a fold tests.
        embargo: rows left out before the test rows: row i trains where label_end[i] < test.start - embargo.
        train_bars: rows a training window spans, ending before the embargo; None: all of the past.

    Raises:
        NotEnoughBars: the first fold has no row, or fewer than `train_bars`, to train on.
    """
    if min(n_splits, test_bars) < 1 or embargo < 0 or (train_bars is not None and train_bars < 1):
        raise ValueError(
            "a walk-forward needs splits, test bars and training bars of at least 1, embargo of 0"
        )
    first_test = len(label_end) - n_splits * test_bars
    needed = n_splits * test_bars + embargo + (train_bars or 1)
    if len(label_end) < needed:
        raise NotEnoughBars(
            f"{n_splits} folds of {test_bars} bars need {needed} bars, there are {len(label_end)}: "
            "ask for fewer or shorter folds, or load more bars"
        )
    starts = range(first_test, len(label_end), test_bars)
    return [
        Fold(_train_rows(label_end, start - embargo, train_bars), slice(start, start + test_bars))
        for start in starts
    ]


def purged_tail(label_end: Rows, fraction: float, embargo: int) -> Tail:
    """Set apart the last `fraction` of the rows with a label; fit rows' labels end before it and the embargo.

    Args:
        label_end: `Labels.end` of the training window, shape (n_bars,); rows with -1 are in neither part.
        fraction: share of the labelled rows to validate on, 0..1 exclusive.
        embargo: rows left out before the first validation row.

    Raises:
        NotEnoughBars: one of the two parts would be empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the validation fraction must lie between 0 and 1, not be {fraction}")
    if embargo < 0:
        raise ValueError(f"the embargo must be at least 0 bars, not {embargo}")
    labelled = np.flatnonzero(label_end >= 0)
    validation = labelled[len(labelled) - int(len(labelled) * fraction) :]
    if not len(validation):
        raise NotEnoughBars(f"{len(labelled)} labelled bars leave none for validation: load more bars")
    return Tail(_train_rows(label_end, int(validation[0]) - embargo, None), validation)


def _train_rows(label_end: Rows, before: int, train_bars: int | None) -> Rows:
    first = 0 if train_bars is None else before - train_bars
    ends = label_end[first:]
    rows = np.flatnonzero((ends >= 0) & (ends < before)) + first
    if not len(rows):
        raise NotEnoughBars(
            f"no label ends before row {before}: load more bars, or shorten horizon or embargo"
        )
    return rows
