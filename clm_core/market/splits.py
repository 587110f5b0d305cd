"""Purged splits in time order: labels of training rows end before the test rows and the embargo."""

import math
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
    """Contiguous test rows after the training rows."""


@dataclass(frozen=True, eq=False)
class Tail:
    """A training window divided into rows to fit and the last rows for early stopping."""

    fit: Rows
    validation: Rows


def walk_forward(
    label_end: Rows, n_splits: int, test_bars: int, embargo: int, train_bars: int | None = None
) -> list[Fold]:
    """Walk-forward folds: training on the past, testing on the next `test_bars`, each tested row once.

    Args:
        label_end: `Labels.end`, shape (n_bars,); rows with -1 are never training rows.
        n_splits: number of folds, which test the last `n_splits * test_bars` rows.
        test_bars: number of test rows of a fold.
        embargo: rows left out before the test rows: row i is a training row if label_end[i] < test.start -
            embargo.
        train_bars: length of the training window, ending before the embargo; by default all of the past.

    Raises:
        NotEnoughBars: the first fold has no training row, or fewer than `train_bars`.
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


def bars_for_tail(fit_rows: int, validation_rows: int, fraction: float, look_back: int, horizon: int) -> int:
    """Number of bars without an outage from which `purged_tail` makes so many rows at least.

    Args:
        fraction: share of the labelled rows for validation, 0..1 exclusive.
        look_back: bars before the first row with inputs.
        horizon: bars from a row to the open that its label uses.
    """
    labelled = max(
        math.ceil(validation_rows / fraction), math.ceil((fit_rows + horizon + 1) / (1 - fraction))
    )
    return look_back + labelled + horizon + 1


def purged_tail(label_end: Rows, fraction: float, embargo: int, at: Rows | None = None) -> Tail:
    """Split off the last `fraction` of the labelled rows; labels of fit rows end before the rest and the
    embargo.

    Args:
        label_end: `Labels.end` of the training window, shape (n_rows,); rows with -1 are in neither part.
        fraction: share of the labelled rows for validation, 0..1 exclusive.
        embargo: rows left out before the first validation row.
        at: place in time of each row, in the unit of `label_end`, shape (n_rows,): rows of several symbols
            share places. By default each row has a place of its own.

    Raises:
        NotEnoughBars: the rows to fit or the validation rows would be empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the validation fraction must lie between 0 and 1, not be {fraction}")
    if embargo < 0:
        raise ValueError(f"the embargo must be at least 0 bars, not {embargo}")
    labelled = np.flatnonzero(label_end >= 0)
    places = labelled if at is None else at[labelled]
    newest = int(len(labelled) * fraction)
    if not newest:
        raise NotEnoughBars(f"{len(labelled)} labelled bars leave none for validation: load more bars")
    # a moment is never divided: rows of all symbols at the place of the first validation row validate
    first = int(np.sort(places)[len(places) - newest])
    fit = labelled[label_end[labelled] < first - embargo]
    if not len(fit):
        raise _no_rows(first - embargo)
    return Tail(fit, labelled[places >= first])


def _no_rows(before: int) -> NotEnoughBars:
    return NotEnoughBars(f"no label ends before row {before}: load more bars, or shorten horizon or embargo")


def _train_rows(label_end: Rows, before: int, train_bars: int | None) -> Rows:
    first = 0 if train_bars is None else before - train_bars
    ends = label_end[first:]
    rows = np.flatnonzero((ends >= 0) & (ends < before)) + first
    if not len(rows):
        raise _no_rows(before)
    return rows
