"""Walk-forward: every out-of-sample position comes from a model fitted on older bars only.

The model of fold k is fitted on `bars[:test_start - embargo]`. Purging needs no separate rule: a label in
need of a later bar is undefined in the slice, so no label reaches into the test rows.
"""

import math
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

DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class FoldResult:
    """A fold: the training rows and the test rows of its model."""

    train: slice
    """Training rows."""
    test: slice
    """Test rows: the rows with positions from the fold's model."""
    train_start: datetime
    train_end: datetime
    """Open time of the last training bar."""
    test_start: datetime
    test_end: datetime
    """Open time of the last test bar."""
    train_metrics: dict[str, float]


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """Out-of-sample positions and forecasts of a recipe's models."""

    positions: Floats
    """Target position after each bar, shape (n_bars,), values in [-1, 1]; 0 before the first test row."""
    forecast: Floats
    """Probability of a price rise, shape (n_bars,); NaN before the test rows or without look-back."""
    rows: slice
    """Out-of-sample rows: from the first test row to the end."""
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
    """Fit a model per fold, and collect the positions of each model on the fold's test rows.

    Positions on test rows are computed with the full history before the rows, as in live trading. The result
    does not depend on `workers`. Folds with warm start are fitted in sequence, each continuing the model of
    the fold before, fitted on older bars only.

    Args:
        recipe: recipe to fit on every fold.
        bars: whole series, n_bars long.
        plan: number of folds, embargo and training window.
        seed: seed of every fit.
        progress: called with the fraction of the work completed, 0..1.
        workers: number of folds fitted in parallel threads; None for a thread per processor.

    Raises:
        NotEnoughBars: a fold would have no rows to train or to test on.
    """
    folds = split(len(bars), plan)
    shares = ProgressSum(len(folds), progress)

    def fit(number: int) -> Model:
        train, _ = folds[number]
        try:
            return recipe.fit(bars[train], seed, lambda done: shares.report(number, done))
        except NotEnoughBars as error:
            raise _with_days(error, bars, plan) from error

    def fit_after(older: Model | None, number: int) -> Model:
        if older is None:
            return fit(number)
        assert isinstance(recipe, WarmStarting)
        train, _ = folds[number]
        return recipe.fit_after(older, bars[train], seed, lambda done: shares.report(number, done))

    if isinstance(recipe, WarmStarting) and recipe.warm_start:
        models = _fit_in_sequence(fit_after, len(folds))
    else:
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            models = list(pool.map(fit, range(len(folds))))
    positions = np.zeros(len(bars))
    forecast = np.full(len(bars), np.nan)
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


def _with_days(error: NotEnoughBars, bars: Bars, plan: WalkForwardPlan) -> NotEnoughBars:
    """The error with the days of bars of this market that the walk-forward takes, if known."""
    too_short = plan.train_bars is not None and error.needed is not None and plan.train_bars < error.needed
    if error.needed is None or too_short:
        return error
    total = math.ceil((error.needed + plan.embargo_bars) / plan.first_train_fraction)
    if total <= len(bars):
        return error
    # holidays are uneven: two days in a hundred more than on average
    days = math.ceil(1.02 * total * DAYS_A_YEAR / bars.periods_per_year)
    return NotEnoughBars(
        f"{error}. Walked forward in {plan.folds} folds, {bars.symbol} {bars.timeframe} takes about "
        f"{total:,} bars, which are {days} days of this market "
        f"({bars.periods_per_year:,.0f} bars a year); given are {len(bars):,} bars. Pass --days {days} "
        "(dataset_span_days), and import older bars where the series is shorter",
        error.needed,
    )


def _fit_in_sequence(fit_after: Callable[[Model | None, int], Model], folds: int) -> list[Model]:
    models: list[Model] = []
    for number in range(folds):
        models.append(fit_after(models[-1] if models else None, number))
    return models


def split(n_bars: int, plan: WalkForwardPlan) -> list[tuple[slice, slice]]:
    """Cut a series into folds: training and test rows of each fold.

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


class ProgressSum:
    """Mean progress of folds fitted in parallel."""

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
    train_bars = bars[train]
    test_bars = bars[test]
    return FoldResult(
        train, test, train_bars.start, train_bars.end, test_bars.start, test_bars.end, train_metrics
    )
