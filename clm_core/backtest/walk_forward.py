"""Walk-forward: every position is given by a model that was fitted on older bars only.

Fold k's model is given `bars[:test_start - embargo]` and nothing else. Purging needs no rule of its own
then: a label that would need a later bar is undefined in that slice, so no label reaches into the test rows.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from threading import Lock

import numpy as np

from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import Model, Progress, Recipe, WarmStarting


@dataclass(frozen=True)
class FoldResult:
    """One fold: what its model saw and where it was tested."""

    train: slice
    """Rows the model was fitted on."""
    test: slice
    """Rows whose positions it gave."""
    train_start: datetime
    train_end: datetime
    """Open time of the last bar trained on."""
    test_start: datetime
    test_end: datetime
    """Open time of the last bar tested on."""
    train_metrics: dict[str, float]


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """What a recipe's models would have done on bars they had not seen."""

    positions: Floats
    """Wanted exposure after each bar, shape (n_bars,); 0 before the first test row."""
    forecast: Floats
    """Probability that the price rises, shape (n_bars,); NaN before the test rows or without look-back."""
    rows: slice
    """The out-of-sample rows: from the first test row to the end."""
    folds: tuple[FoldResult, ...]


def walk_forward(
    recipe: Recipe,
    bars: Bars,
    plan: WalkForwardPlan,
    seed: int,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
) -> OutOfSample:
    """Fit one model a fold and let each speak on the rows after its own training rows only.

    Positions of test rows are computed with the history before them, as a live trader would have it. The
    answer does not depend on `workers`. Folds that start warm are fitted one after the other, each continuing
    the model of the one before, which has seen older bars only.

    Args:
        workers: folds fitted at the same time, on threads; None: one a processor.

    Raises:
        NotEnoughBars: a fold would have no rows to train or to test on.
    """
    folds = split(len(bars), plan)
    shares = _Shares(len(folds), progress)

    def fit(number: int) -> Model:
        train, _ = folds[number]
        return recipe.fit(bars[train], seed, lambda done: shares.report(number, done))

    def fit_after(older: Model | None, number: int) -> Model:
        if older is None:
            return fit(number)
        assert isinstance(recipe, WarmStarting)
        train, _ = folds[number]
        return recipe.fit_after(older, bars[train], seed, lambda done: shares.report(number, done))

    if isinstance(recipe, WarmStarting) and recipe.warm_start:
        models = _one_after_another(fit_after, len(folds))
    else:
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            models = list(pool.map(fit, range(len(folds))))
    positions, forecast = np.zeros(len(bars)), np.full(len(bars), np.nan)
    for model, (_, test) in zip(models, folds, strict=True):
        known = bars[: test.stop]
        positions[test] = model.positions(known)[test]
        forecast[test] = model.forecast(known)[test]
    for array in (positions, forecast):
        array.setflags(write=False)
    results = (
        fold_result(bars, *fold, model.train_metrics) for fold, model in zip(folds, models, strict=True)
    )
    return OutOfSample(positions, forecast, slice(folds[0][1].start, len(bars)), tuple(results))


def _one_after_another(fit_after: Callable[[Model | None, int], Model], folds: int) -> list[Model]:
    models: list[Model] = []
    for number in range(folds):
        models.append(fit_after(models[-1] if models else None, number))
    return models


def split(n_bars: int, plan: WalkForwardPlan) -> list[tuple[slice, slice]]:
    """Training and test rows of each fold.

    Raises:
        NotEnoughBars: a fold would have no rows to train or to test on.
    """
    first = int(n_bars * plan.first_train_fraction)
    edges = np.linspace(first, n_bars, plan.folds + 1).astype(int).tolist()
    if first <= plan.embargo_bars or n_bars - first < plan.folds:
        raise NotEnoughBars(
            f"{n_bars} bars cannot be walked forward in {plan.folds} folds with {first} bars before the "
            f"first and an embargo of {plan.embargo_bars}: give more days of bars or fewer folds"
        )
    folds = []
    for start, stop in pairwise(edges):
        train_stop = start - plan.embargo_bars
        train_start = 0 if plan.train_bars is None else max(0, train_stop - plan.train_bars)
        folds.append((slice(train_start, train_stop), slice(start, stop)))
    return folds


class _Shares:
    """Adds up the finished shares of folds that run at the same time."""

    def __init__(self, folds: int, progress: Progress | None) -> None:
        self._done = [0.0] * folds
        self._progress = progress
        self._lock = Lock()

    def report(self, fold: int, done: float) -> None:
        if self._progress is None:
            return
        with self._lock:
            self._done[fold] = done
            self._progress(sum(self._done) / len(self._done))


def fold_result(bars: Bars, train: slice, test: slice, train_metrics: dict[str, float]) -> FoldResult:
    fitted, tested = bars[train], bars[test]
    return FoldResult(train, test, fitted.start, fitted.end, tested.start, tested.end, train_metrics)
