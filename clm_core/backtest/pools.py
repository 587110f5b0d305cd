"""Walk-forward, leak test and portfolio of a pool: a single model over several symbols.

The equal-risk portfolio holds an equal share of the capital in every member, rebalanced after each bar: the
return of a bar is the mean of the members' returns. Members sized to the same volatility then carry equal
risk. A member without a bar earns 0.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest import sentinel
from clm_core.backtest.agreement import agreement_metric, rank_correlation
from clm_core.backtest.results import Backtest, PoolTrades, Trades
from clm_core.backtest.return_forecasts import collected, return_forecasts
from clm_core.backtest.walk_forward import (
    FitOnce,
    FoldResult,
    OutOfSample,
    ProgressSum,
    final_rows,
    fit_anew,
    fold_result,
    fold_rows,
    history_start,
)
from clm_core.domain.errors import LookAhead, NotEnoughBars
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars, Floats
from clm_core.market.look_ahead import first_leak
from clm_core.market.panel import Panel, Times
from clm_core.models.contract import Pooling, Progress
from clm_core.models.pooled import PooledModel, fit_pool


@dataclass(frozen=True)
class FoldTimes:
    """A fold of a pool as moments on the common axis, nanoseconds since 1970-01-01 UTC."""

    train_start: int
    train_stop: int
    """Training bars open before the moment, and are closed then."""
    test_start: int
    test_stop: int
    """Test bars open before the moment."""


def fold_times(time: Times, folds: Sequence[tuple[slice, slice]]) -> list[FoldTimes]:
    """Moments of folds given as rows of an axis."""
    end = int(time[-1]) + 1
    edges = [*time.tolist(), end]
    return [
        FoldTimes(edges[train.start], edges[train.stop], edges[test.start], edges[test.stop])
        for train, test in folds
    ]


def walk_forward(
    recipe: Pooling,
    panel: Panel,
    plan: WalkForwardPlan,
    seed: int,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
    fit_once: FitOnce[Panel, PooledModel] = fit_anew,
) -> tuple[OutOfSample, ...]:
    """Fit a model per fold to the bars of all members, and collect the positions of each member.

    Folds are cut on the common axis of time, so that the model of a fold sees no bar of any member from the
    fold's embargo on. A member without a bar in the training window of a fold stays flat in the fold.

    Returns:
        Out-of-sample positions of each member, in the order of the panel; the folds count rows of the common
        axis.

    Raises:
        NotEnoughBars: a fold would have no rows to train or to test on.
    """
    folds = fold_rows(panel.time, plan)
    times = fold_times(panel.time, folds)
    shares = ProgressSum(len(folds), progress)

    def fit(number: int) -> PooledModel:
        trained = panel.between(times[number].train_start, times[number].train_stop)
        if trained is None:
            raise NotEnoughBars(f"no member of {panel.name} has bars to train fold {number + 1} on")
        model = fit_once(trained, lambda: fit_pool(recipe, trained, seed, partial(shares.report, number)))
        shares.finish(number)
        return model

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        models = list(pool.map(fit, range(len(folds))))
    axis = panel.index_bars()
    results = tuple(
        fold_result(axis, *fold, model.train_metrics, model.importances())
        for fold, model in zip(folds, models, strict=True)
    )
    starts = [int(panel.time[history_start(plan, train)]) for train, _ in folds]
    runs = tuple(_of_member(member, models, times, starts, results) for member in panel)
    agreements = [math.nan, *map(partial(_agreement, panel, runs), models[1:], times, starts)]
    agreed = tuple(
        replace(fold, train_metrics=fold.train_metrics | agreement_metric(agreement))
        for fold, agreement in zip(results, agreements, strict=True)
    )
    return tuple(replace(run, folds=agreed) for run in runs)


def final_panel(panel: Panel, plan: WalkForwardPlan) -> Panel:
    """Bars of the final fit: the newest training span of the common axis."""
    rows = final_rows(panel.time, plan)
    newest = panel.between(int(panel.time[rows.start]), int(panel.time[-1]) + 1)
    assert newest is not None
    return newest


def _agreement(
    panel: Panel, runs: Sequence[OutOfSample], newer: PooledModel, older: FoldTimes, start: int
) -> float:
    """Agreement of a model with the model of the fold before, on the older test rows of all members.

    Args:
        runs: out-of-sample positions of each member.
        start: first moment known to the older model, nanoseconds since 1970-01-01 UTC.
    """
    ours = list[Floats]()
    theirs = list[Floats]()
    for bars, run in zip(panel, runs, strict=True):
        rows = slice(*np.searchsorted(bars.time, [older.test_start, older.test_stop]).tolist())
        ours.append(_of_member(bars, [newer], [older], [start], ()).positions[rows])
        theirs.append(run.positions[rows])
    return rank_correlation(np.concatenate(ours), np.concatenate(theirs))


def _of_member(
    bars: Bars,
    models: Sequence[PooledModel],
    times: Sequence[FoldTimes],
    starts: Sequence[int],
    folds: tuple[FoldResult, ...],
) -> OutOfSample:
    """
    Args:
        starts: first moment known to the model of each fold, nanoseconds since 1970-01-01 UTC.
    """
    positions = np.zeros(len(bars))
    forecast = np.full(len(bars), np.nan)
    returns = []
    for model, fold, start in zip(models, times, starts, strict=True):
        oldest, first, stop = np.searchsorted(bars.time, [start, fold.test_start, fold.test_stop]).tolist()
        if first == stop or bars.symbol not in model.symbols:
            continue
        # older bars change no answer: `Model.bars_needed`
        needed = model.member(bars.symbol).bars_needed
        begin = oldest if needed is None else max(oldest, first + 1 - needed)
        known = bars[begin:stop]
        positions[first:stop] = model.positions(known)[first - begin :]
        forecast[first:stop] = model.forecast(known)[first - begin :]
        own = return_forecasts(model.member(bars.symbol), known, first - begin)
        returns.append((slice(first, stop), own))
    for array in (positions, forecast):
        array.setflags(write=False)
    rows = slice(int(np.searchsorted(bars.time, times[0].test_start)), len(bars))
    return OutOfSample(positions, forecast, rows, folds, collected(len(bars), returns))


def on_axis(panel: Panel, members: Sequence[OutOfSample]) -> OutOfSample:
    """Mean position of the members on the common axis, without a forecast; a member without a bar counts as
    flat."""
    positions = np.zeros(len(panel.time))
    for bars, run in zip(panel, members, strict=True):
        positions[np.searchsorted(panel.time, bars.time)] += run.positions / len(panel)
    folds = members[0].folds
    rows = slice(folds[0].test.start, len(positions))
    return OutOfSample(positions, np.full(len(positions), np.nan), rows, folds)


def examine(recipe: Pooling, model: PooledModel, panel: Panel, seed: int) -> None:
    """Leak test of a pool: the features once, the positions of every member, and the training on shuffled
    bars of all members.

    Raises:
        LookAhead: an experiment found a leak; the message names the culprit.
    """
    rng = np.random.default_rng(seed)
    first = max(panel.members, key=len)[-sentinel.NEWEST :]
    rows = _sampled_rows(first, rng, 2)
    sentinel.examine_built_in_features(first, rows)
    for member in panel:
        fitted = model.member(member.symbol)
        newest = sentinel.settled_bars(member, fitted)
        if len(newest) < 2:
            continue
        leak = first_leak(fitted.positions, newest, _sampled_rows(newest, rng, 1))
        if leak is not None:
            raise LookAhead(f"the model's positions for {member.symbol}", leak)
    examine_learning(recipe, panel, seed)


def examine_learning(recipe: Pooling, panel: Panel, seed: int) -> None:
    """Fit on the first two thirds of bars with shuffled returns, and earn nothing on the last third.

    Raises:
        LookAhead: the portfolio earns more than `sentinel.LARGEST_SCORE` standard errors.
    """
    begin = int(panel.time[-min(sentinel.NEWEST, len(panel.time))])
    newest = panel.between(begin, int(panel.time[-1]) + 1)
    assert newest is not None
    rng = np.random.default_rng(seed)
    shuffled = replace(newest, members=tuple(sentinel.shuffle(member, rng) for member in newest))
    cut = int(shuffled.time[len(shuffled.time) * 2 // 3])
    trained = shuffled.between(int(shuffled.time[0]), cut)
    assert trained is not None
    model = fit_pool(recipe, trained, seed)
    total = np.zeros(len(shuffled.time))
    for member in shuffled:
        if member.symbol not in model.symbols:
            continue
        first = int(np.searchsorted(member.time, cut))
        if first == len(member):
            continue
        returns = sentinel.gross_returns(member[first:], model.positions(member)[first:])
        total[np.searchsorted(shuffled.time, member.time[first:])] += returns
    score = sentinel.score_of(total[np.searchsorted(shuffled.time, cut) :])
    if score > sentinel.LARGEST_SCORE:
        raise LookAhead(
            "the recipe", f"a mean return of {score:.1f} standard errors on bars with shuffled returns"
        )


def portfolio(
    axis: Bars,
    results: Sequence[tuple[Bars, Backtest]],
    initial_cash: float,
    members: int | None = None,
) -> Backtest:
    """Equal-risk portfolio of the members' backtests.

    Args:
        axis: bars of the pool, at least all bars of the members, n_bars long.
        results: bars and backtest of each member with bars on the axis.
        initial_cash: starting capital of the portfolio, and of each backtest.
        members: number of members sharing the capital; by default the members with results.

    Returns:
        Series on the axis: mean returns and turnover (0 for a member without a bar), mean signed exposure (a
        member without a bar keeps the last exposure). Trades of all members in the order of their exits, with
        rows on the axis and the members' own returns; cash amounts are shares of the members'.
    """
    share = 1.0 / (members or len(results))
    returns, turnover, exposure = (np.zeros(len(axis)) for _ in range(3))
    for bars, result in results:
        rows = np.searchsorted(axis.time, bars.time)
        returns[rows] += result.returns * share
        turnover[rows] += result.turnover * share
        exposure += _held(axis, bars, result.exposure) * share
    return Backtest(
        equity=np.asarray(initial_cash * np.cumprod(1.0 + returns), dtype=np.float64),
        returns=returns,
        exposure=exposure,
        turnover=turnover,
        costs_paid=sum(result.costs_paid for _, result in results) * share,
        trades=_trades(axis, results, share),
        holding_costs=sum(result.holding_costs for _, result in results) * share,
    )


def contribution(members: int, result: Backtest) -> float:
    """Sum of a member's returns times its share of the capital: the contributions add up to the sum of the
    portfolio's returns."""
    return float(result.returns.sum()) / members


def _held(axis: Bars, bars: Bars, exposure: Floats) -> Floats:
    last = np.searchsorted(bars.time, axis.time, side="right") - 1
    return np.where(last >= 0, exposure[np.maximum(last, 0)], 0.0)


def _trades(axis: Bars, members: Sequence[tuple[Bars, Backtest]], share: float) -> PoolTrades:
    columns: dict[str, list[NDArray[Any]]] = {field.name: [] for field in fields(Trades)}
    for bars, result in members:
        rows = np.searchsorted(axis.time, bars.time)
        for name, values in columns.items():
            column = getattr(result.trades, name)
            if name in ("entry_bar", "exit_bar"):
                # a trade may end with the data, one row after the last bar
                column = np.append(rows, rows[-1] + 1)[column]
            values.append(column * share if name == "pnl" else column)
    joined: dict[str, NDArray[Any]] = {name: np.concatenate(values) for name, values in columns.items()}
    symbol = np.concatenate([np.full(len(result.trades), bars.symbol) for bars, result in members])
    order = np.argsort(joined["exit_bar"], kind="stable")
    return PoolTrades(**{name: values[order] for name, values in joined.items()}, symbol=symbol[order])


def _sampled_rows(bars: Bars, rng: np.random.Generator, count: int) -> list[int]:
    rows: list[int] = rng.integers(len(bars) // 2, len(bars) - 1, size=count).tolist()
    return sorted(rows)
