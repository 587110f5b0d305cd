"""Walk-forward: every out-of-sample position comes from a model fitted on older bars only.

A fold begins at a fixed date, and its model is fitted on the training span of the plan that ends at the date
less the embargo: no run, and no bar after the fold, changes the positions of a past fold. Purging needs no
separate rule: a label in need of a later bar is undefined in the training rows, so no label reaches into the
test rows.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import pandas as pd

from clm_core.backtest.agreement import agreement_metric, rank_correlation
from clm_core.backtest.return_forecasts import (
    ReturnForecasts,
    collected,
    from_arrays,
    return_forecasts,
    to_arrays,
)
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.walk_forward import FoldGrid, WalkForwardPlan
from clm_core.market.bars import Bars, Floats, moment_of
from clm_core.market.panel import Panel, Times
from clm_core.models.contract import Model, Progress, Recipe, WarmStarting

DAYS_A_YEAR = 365.25
DAY_NS = 86_400_000_000_000
FREQUENCIES = {
    FoldGrid.YEAR: "YS",
    FoldGrid.HALF_YEAR: "QS",
    FoldGrid.QUARTER: "QS",
    FoldGrid.MONTH: "MS",
    FoldGrid.WEEK: "W-MON",
    FoldGrid.DAY: "D",
}
"""Dates of each grid as frequencies of pandas; of half years every second one."""
D = TypeVar("D", Bars, Panel)
M = TypeVar("M", bound=Model)
FitOnce = Callable[[D, Callable[[], M]], M]
"""Function that returns the model of a fold from its training bars: the result of the function given, or an
equal model kept from an earlier call."""

Arrays = Mapping[str, Floats]
"""Arrays by name."""
TRAIN_METRICS = "train_metrics."
IMPORTANCES = "importances."
"""Beginnings of the names of numbers kept beside the answers of a model, arrays of shape (1,)."""


class AnswerStore(Protocol):
    """Answers of the models of folds, kept between walk-forwards.

    Answers depend on the recipe, its seed, the facts and the bars alone; the training bars of each model are
    among the bars.
    """

    def recall(self, facts: Mapping[str, Any], bars: Sequence[Bars]) -> Arrays | None:
        """Answers kept earlier; None without."""

    def keep(self, facts: Mapping[str, Any], bars: Sequence[Bars], answers: Arrays) -> None:
        """Keep answers for a later walk-forward."""


class NoAnswers:
    """An `AnswerStore` that keeps nothing."""

    def recall(self, facts: Mapping[str, Any], bars: Sequence[Bars]) -> Arrays | None:
        return None

    def keep(self, facts: Mapping[str, Any], bars: Sequence[Bars], answers: Arrays) -> None:
        pass


NO_ANSWERS = NoAnswers()


def fit_anew(bars: Bars | Panel, fit: Callable[[], M]) -> M:
    """A `FitOnce` that keeps no model."""
    return fit()


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
    importances: dict[str, float] = field(default_factory=dict)
    """Share of each feature in the decisions of the fold's model; empty if unknown."""


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
    returns: ReturnForecasts | None = None
    """Forecasts of the return over the horizon, NaN before the test rows; None for a kind without, and for
    results of an earlier release."""


def walk_forward(
    recipe: Recipe,
    bars: Bars,
    plan: WalkForwardPlan,
    seed: int,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
    fit_once: FitOnce[Bars, Model] = fit_anew,
    store: AnswerStore = NO_ANSWERS,
) -> OutOfSample:
    """Fit a model per fold, and collect the positions of each model on the fold's test rows.

    Positions on test rows are computed from the first training bar of the fold on, as in live trading; in
    equal folds with the full history. The result does not depend on `workers`. Folds with warm start are
    fitted in sequence, each continuing the model of the fold before, fitted on older bars only.

    Args:
        recipe: recipe to fit on every fold.
        bars: whole series, n_bars long.
        plan: dates or number of the folds, embargo and training span; a plan without the days of a request
            takes the days of the bars.
        seed: seed of every fit.
        progress: called with the fraction of the work completed, 0..1.
        workers: number of folds fitted in parallel threads; None for a thread per processor.
        fit_once: keeps the models of folds without warm start between calls.
        store: keeps the answers of folds without warm start between calls; a model whose answers are kept is
            neither fitted nor loaded.

    Raises:
        NotEnoughBars: a fold would have no rows to train or to test on.
    """
    folds = fold_rows(bars.time, plan)
    folds_bars = [_FoldBars.of(bars, plan, *fold) for fold in folds]
    shares = ProgressSum(len(folds), progress)

    def fit(number: int) -> Model:
        own = folds_bars[number].trained
        try:
            model = fit_once(own, lambda: recipe.fit(own, seed, partial(shares.report, number)))
        except NotEnoughBars as error:
            raise _with_days(error, bars, plan) from error
        shares.finish(number)
        return model

    def fit_after(older: Model | None, number: int) -> Model:
        if older is None:
            return fit(number)
        assert isinstance(recipe, WarmStarting)
        return recipe.fit_after(older, folds_bars[number].trained, seed, partial(shares.report, number))

    warm = isinstance(recipe, WarmStarting) and recipe.warm_start
    # with warm start a model depends on the training bars of all folds before
    kept = NO_ANSWERS if warm else store
    own = [kept.recall(*fold.question) for fold in folds_bars]
    compared = [None, *(kept.recall(*newer.beside(older)) for older, newer in pairwise(folds_bars))]
    if warm:
        models = dict(enumerate(_fit_in_sequence(fit_after, len(folds))))
    else:
        known = [own[n] is not None and (n == 0 or compared[n] is not None) for n in range(len(folds))]
        missing = [number for number, is_known in enumerate(known) if not is_known]
        for number in set(range(len(folds))) - set(missing):
            shares.finish(number)
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            models = dict(zip(missing, pool.map(fit, missing), strict=True))
    answers = []
    for number, (fold, recalled) in enumerate(zip(folds_bars, own, strict=True)):
        answers.append(recalled or _answers(models[number], fold))
        if recalled is None:
            kept.keep(*fold.question, answers[number])
    agreements = [math.nan]
    for number in range(1, len(folds)):
        older = folds_bars[number - 1]
        agreement = compared[number]
        if agreement is None:
            agreement = _agreement(models[number], older, answers[number - 1]["positions"])
            kept.keep(*folds_bars[number].beside(older), agreement)
        agreements.append(float(agreement["agreement"][0]))
    results = (
        fold_result(
            bars,
            *fold,
            _numbers(TRAIN_METRICS, arrays) | agreement_metric(agreement),
            _numbers(IMPORTANCES, arrays),
        )
        for fold, arrays, agreement in zip(folds, answers, agreements, strict=True)
    )
    positions = np.zeros(len(bars))
    forecast = np.full(len(bars), np.nan)
    for (_, test), arrays in zip(folds, answers, strict=True):
        positions[test] = arrays["positions"]
        forecast[test] = arrays["forecast"]
    for array in (positions, forecast):
        array.setflags(write=False)
    returns = [(test, from_arrays(arrays)) for (_, test), arrays in zip(folds, answers, strict=True)]
    rows = slice(folds[0][1].start, len(bars))
    return OutOfSample(positions, forecast, rows, tuple(results), collected(len(bars), returns))


@dataclass(frozen=True, eq=False)
class _FoldBars:
    """Bars of a fold."""

    trained: Bars
    known: Bars
    """Bars known to the model at the last test bar."""
    first: int
    """Row of the first test bar among the known bars."""
    parts: tuple[Bars, ...]
    """Known bars in parts, the training bars among them: a hash of these is computed already."""

    @classmethod
    def of(cls, bars: Bars, plan: WalkForwardPlan, train: slice, test: slice) -> Self:
        begin = history_start(plan, train)
        trained = bars[train]
        parts = (bars[begin : train.start], trained, bars[train.stop : test.stop])
        return cls(trained, bars[begin : test.stop], test.start - begin, parts)

    @property
    def question(self) -> tuple[Mapping[str, Any], Sequence[Bars]]:
        """Facts and bars of the answers of the fold's model."""
        return {"answers": "test rows", "first": self.first}, self.parts

    def beside(self, older: "_FoldBars") -> tuple[Mapping[str, Any], Sequence[Bars]]:
        """Facts and bars of the agreement with the fold before."""
        return {"answers": "agreement", "first": older.first}, (self.trained, *older.parts)


def _answers(model: Model, fold: _FoldBars) -> Arrays:
    """Answers of a fold's model on the test rows, with the names of `OutOfSample` and `ReturnForecasts`, and
    the training metrics and importances of the model."""
    positions = model.positions(fold.known)[fold.first :]
    forecast = model.forecast(fold.known)[fold.first :]
    returns = to_arrays(return_forecasts(model, fold.known, fold.first))
    numbers = [(TRAIN_METRICS, model.train_metrics), (IMPORTANCES, model.importances())]
    arrays = {
        "positions": positions,
        "forecast": forecast,
        **returns,
        **{f"{prefix}{name}": [value] for prefix, own in numbers for name, value in own.items()},
    }
    return {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()}


def _agreement(newer: Model, older: _FoldBars, positions: Floats) -> Arrays:
    """Agreement of a model with the model of the fold before, on the older test rows.

    Args:
        positions: positions of the older model on its test rows.
    """
    ours = newer.positions(older.known)[older.first :]
    return {"agreement": np.array([rank_correlation(ours, positions)])}


def _numbers(prefix: str, arrays: Arrays) -> dict[str, float]:
    """Numbers among arrays, by the rest of the name."""
    return {
        name.removeprefix(prefix): float(values[0])
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


def _with_days(error: NotEnoughBars, bars: Bars, plan: WalkForwardPlan) -> NotEnoughBars:
    """The error with the days of bars of this market that the walk-forward takes, if known."""
    too_short = plan.train_bars is not None and error.needed is not None and plan.train_bars < error.needed
    if error.needed is None or too_short:
        return error
    total = _bars_to_walk(error.needed, plan)
    if total <= len(bars):
        return error
    days = days_to_walk(error.needed, bars, plan)
    return NotEnoughBars(
        f"{error}. Walked forward, {bars.symbol} {bars.timeframe} takes about "
        f"{total:,} bars, which are {days} days of this market "
        f"({bars.periods_per_year:,.0f} bars a year); given are {len(bars):,} bars. Pass --days {days} "
        "(dataset_span_days), and import older bars where the series is shorter",
        error.needed,
    )


def days_to_walk(needed: int, bars: Bars, plan: WalkForwardPlan) -> int:
    """Days of bars to request so that every fold trains on a number of bars.

    Args:
        needed: bars that a fit needs.
        bars: bars of the market, for the number of bars in a year.
    """
    # holidays are uneven: two days in a hundred more than on average
    return math.ceil(1.02 * _bars_to_walk(needed, plan) * DAYS_A_YEAR / bars.periods_per_year)


def _bars_to_walk(needed: int, plan: WalkForwardPlan) -> int:
    return math.ceil((needed + plan.embargo_bars) / plan.first_train_fraction)


def _fit_in_sequence(fit_after: Callable[[Model | None, int], Model], folds: int) -> list[Model]:
    models: list[Model] = []
    for number in range(folds):
        models.append(fit_after(models[-1] if models else None, number))
    return models


def fold_rows(time: Times, plan: WalkForwardPlan) -> list[tuple[slice, slice]]:
    """Training and test rows of each fold of the plan.

    Args:
        time: open times of the bars, nanoseconds since 1970-01-01 UTC, ascending, shape (n_bars,).

    Raises:
        NotEnoughBars: a fold would have no rows to train or to test on.
    """
    if not plan.on_dates:
        return split(len(time), plan)
    return _dated_rows(time, plan_of_bars(time, plan)) if len(time) else split(0, plan.in_equal_folds())


def plan_of_bars(time: Times, plan: WalkForwardPlan) -> WalkForwardPlan:
    """The plan, with the days of the bars where the plan names no days of a request."""
    days = max(1, math.ceil((int(time[-1]) - int(time[0])) / DAY_NS))
    return plan.for_request(days, days)


def final_rows(time: Times, plan: WalkForwardPlan) -> slice:
    """Training rows of the final fit: the newest training span, by the same rule as that of a fold; all rows
    of a plan in equal folds, and of a short request (`SHORT_SPAN_DAYS`)."""
    if not plan.on_dates:
        return slice(0, len(time))
    plan = plan_of_bars(time, plan)
    if plan.train_bars is None and plan.final_days > plan.train_days:
        return slice(0, len(time))
    return slice(max(0, _train_start(time, plan, len(time), int(time[-1]) + 1)), len(time))


def history_start(plan: WalkForwardPlan, train: slice) -> int:
    """First row known to the model of a fold: fixed, since averages may depend on the first bar for ever."""
    start: int = train.start if plan.on_dates else 0
    return start


def _dated_rows(time: Times, plan: WalkForwardPlan) -> list[tuple[slice, slice]]:
    assert plan.grid is not None
    dates = grid_dates(plan.grid, int(time[0]), int(time[-1]))
    edges = [*np.unique(np.searchsorted(time, dates)).tolist(), len(time)]
    folds = []
    for start, stop in pairwise(edges):
        train_stop = start - plan.embargo_bars
        begin = _train_start(time, plan, train_stop, int(time[min(start, len(time) - 1)]))
        # a fold without the whole training span before it would be another recipe
        if 0 <= begin < train_stop and start < stop:
            folds.append((slice(begin, train_stop), slice(start, stop)))
    if not folds:
        raise NotEnoughBars(
            f"{len(time)} bars cannot be walked forward by the {plan.grid.value.replace('_', '-')}: no fold "
            f"has {_training_span(plan)} before it and bars to test after: give more days of bars or fewer "
            "folds (walk_forward.folds)"
        )
    return folds


def _training_span(plan: WalkForwardPlan) -> str:
    if plan.train_bars is not None:
        return f"{plan.train_bars:,} bars and an embargo of {plan.embargo_bars}"
    return f"{plan.train_days:g} days, more than the embargo of {plan.embargo_bars} bars,"


def _train_start(time: Times, plan: WalkForwardPlan, train_stop: int, moment: int) -> int:
    """First training row of a span that ends before row `train_stop`; negative if bars are missing.

    Args:
        moment: end of the training span, nanoseconds since 1970-01-01 UTC.
    """
    if plan.train_bars is not None:
        return train_stop - plan.train_bars
    first = moment - round(plan.train_days * DAY_NS)
    return int(np.searchsorted(time, first)) if int(time[0]) <= first else -1


def grid_dates(grid: FoldGrid, first: int, last: int) -> Times:
    """Dates of a grid after a first and up to a last moment, nanoseconds since 1970-01-01 UTC."""
    begin = (pd.Timestamp(first) + pd.Timedelta(1, "ns")).ceil("D")
    dates = pd.date_range(begin, pd.Timestamp(last), freq=FREQUENCIES[grid])
    if grid is FoldGrid.HALF_YEAR:
        dates = dates[dates.month.isin((1, 7))]
    return np.asarray(dates.as_unit("ns").asi8, dtype=np.int64)


def split(n_bars: int, plan: WalkForwardPlan) -> list[tuple[slice, slice]]:
    """Cut a series into equal folds: training and test rows of each fold.

    Raises:
        NotEnoughBars: a fold would have no rows to train or to test on.
    """
    count = plan.equal_folds
    first = int(n_bars * plan.first_train_fraction)
    edges = np.linspace(first, n_bars, count + 1).astype(int).tolist()
    if first <= plan.embargo_bars or n_bars - first < count:
        raise NotEnoughBars(
            f"{n_bars} bars cannot be walked forward in {count} folds with {first} bars before the "
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

    def finish(self, fold: int) -> None:
        """Report a fold whose model was not fitted but kept."""
        if self._done[fold] < 1.0:
            self.report(fold, 1.0)


def fold_result(
    bars: Bars,
    train: slice,
    test: slice,
    train_metrics: dict[str, float],
    importances: dict[str, float] | None = None,
) -> FoldResult:
    train_times = bars.time[train]
    test_times = bars.time[test]
    return FoldResult(
        train,
        test,
        moment_of(train_times[0]),
        moment_of(train_times[-1]),
        moment_of(test_times[0]),
        moment_of(test_times[-1]),
        train_metrics,
        importances or {},
    )
