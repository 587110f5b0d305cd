"""Folds of a search: a walk-forward computed fold by fold, so that poor parameters can be pruned early."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from clm_core.backtest.engine import check_positions
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.backtest.walk_forward import split
from clm_core.domain.costs import MarketCosts
from clm_core.domain.kinds import Kind
from clm_core.domain.searches import MarketSearch, Search
from clm_core.market.bars import Bars, Floats
from clm_core.models import catalog
from clm_core.models.contract import WarmStarting
from clm_core.models.own import FeaturesInUse


@dataclass(frozen=True, eq=False)
class SharedInputs:
    """Inputs common to all folds of a search."""

    kind: Kind
    costs: MarketCosts
    bars: Bars
    features: FeaturesInUse | None = None
    """Own features of the searching process; None to use those of the worker's process."""


@dataclass(frozen=True)
class FoldTask:
    """A set of parameters to fit and to test on some rows of the bars."""

    params: Mapping[str, Any]
    seed: int
    train: slice
    test: slice
    before: tuple[slice, ...] = ()
    """Training rows of the earlier folds, on which a warm start fits first."""


@dataclass(frozen=True)
class FoldPlan:
    """Folds of a walk-forward, in order."""

    folds: tuple[tuple[slice, slice], ...]
    """Training and test rows of each fold."""

    @property
    def first(self) -> int:
        """Index of the first test row."""
        row: int = self.folds[0][1].start
        return row

    def fold(self, number: int, params: Mapping[str, Any], seed: int) -> FoldTask:
        train, test = self.folds[number]
        return FoldTask(params, seed, train, test, tuple(train for train, _ in self.folds[:number]))


def run_fold(shared_inputs: SharedInputs, fold_task: FoldTask) -> Floats:
    """Positions on the test rows of a model fitted on the training rows only, as in a whole walk-forward.

    A warm start fits the earlier folds again, so that any worker can compute any fold.

    Raises:
        InvalidPositions: the model's positions cannot be traded.
        FeatureMismatch: an own feature is missing in this process, or its source has changed.
    """
    features = shared_inputs.features
    with nullcontext() if features is None else features.in_force():
        return _run_fold(shared_inputs, fold_task)


def _run_fold(shared_inputs: SharedInputs, fold_task: FoldTask) -> Floats:
    bars = shared_inputs.bars
    kind = shared_inputs.kind
    params = catalog.stored_params(kind.model_type, fold_task.params, kind.plugin)
    recipe = catalog.recipe(kind.model_type, params, shared_inputs.costs, kind.plugin)
    if isinstance(recipe, WarmStarting) and recipe.warm_start and fold_task.before:
        model = recipe.fit(bars[fold_task.before[0]], fold_task.seed)
        for train in (*fold_task.before[1:], fold_task.train):
            model = recipe.fit_after(model, bars[train], fold_task.seed)
    else:
        model = recipe.fit(bars[fold_task.train], fold_task.seed)
    return check_positions(bars[fold_task.test], model.positions(bars[: fold_task.test.stop])[fold_task.test])


def search_folds(n_bars: int, search: Search) -> FoldPlan:
    """The walk-forward that compares parameters: a retrain's plan, on the bars before the held-out ones.

    Raises:
        NotEnoughBars: a fold would have no rows to train or to test on.
    """
    return FoldPlan(tuple(split(n_bars - held_out(n_bars, search), search.plan)))


def held_out_folds(n_bars: int, search: Search) -> FoldPlan:
    """The held-out bars, in folds about as long as those of the search."""
    held = held_out(n_bars, search)
    seen = n_bars - held
    length = seen * (1 - search.plan.first_train_fraction) / search.plan.equal_folds
    folds = min(max(1, round(held / length)), held)
    # half a bar more, so that rounding never tests a bar that the search has used
    plan = search.plan.model_copy(update={"folds": folds, "first_train_fraction": (seen + 0.5) / n_bars})
    return FoldPlan(tuple(split(n_bars, plan)))


def held_out(n_bars: int, search: MarketSearch) -> int:
    """Number of held-out bars, the newest."""
    return int(n_bars * search.holdout)


def backtest_folds(bars: Bars, first: int, fold_positions: list[Floats], market: MarketTerms) -> Backtest:
    """Backtest, under the terms of the market, of the positions of consecutive folds from row `first` on."""
    positions = np.concatenate(fold_positions)
    return market.backtest(bars[first : first + len(positions)], positions)
