"""How a set of parameters is tried: walked forward fold by fold, so that a hopeless one is given up early."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clm_core.backtest.engine import backtest, check_positions
from clm_core.backtest.results import Backtest
from clm_core.backtest.walk_forward import split
from clm_core.domain.costs import Costs
from clm_core.domain.kinds import Kind
from clm_core.domain.searches import Search
from clm_core.market.bars import Bars, Floats
from clm_core.models import catalog
from clm_core.models.contract import WarmStarting


@dataclass(frozen=True, eq=False)
class SharedInputs:
    """What all the folds of a search share."""

    kind: Kind
    costs: Costs
    bars: Bars


@dataclass(frozen=True)
class FoldTask:
    """A set of parameters to fit and to test on some rows of the bars."""

    params: Mapping[str, Any]
    seed: int
    train: slice
    test: slice
    before: tuple[slice, ...] = ()
    """Training rows of the folds before it, whose models a warm start begins with."""


@dataclass(frozen=True)
class FoldPlan:
    """The folds, in order, that a set of parameters is tried on."""

    folds: tuple[tuple[slice, slice], ...]
    """Training and test rows."""

    @property
    def first(self) -> int:
        """First row that is tested."""
        row: int = self.folds[0][1].start
        return row

    def fold(self, number: int, params: Mapping[str, Any], seed: int) -> FoldTask:
        train, test = self.folds[number]
        return FoldTask(params, seed, train, test, tuple(train for train, _ in self.folds[:number]))


def run_fold(work: SharedInputs, fold: FoldTask) -> Floats:
    """Positions on the test rows, of a model that was fitted on the training rows only: those a walk-forward
    gives them.

    A fold that starts warm fits those before it again: whoever computes it need not have computed them.

    Raises:
        InvalidPositions: the model gave some that cannot be traded.
    """
    recipe = catalog.recipe(work.kind.model_type, fold.params, work.costs, work.kind.plugin)
    if isinstance(recipe, WarmStarting) and recipe.warm_start and fold.before:
        model = recipe.fit(work.bars[fold.before[0]], fold.seed)
        for train in (*fold.before[1:], fold.train):
            model = recipe.fit_after(model, work.bars[train], fold.seed)
    else:
        model = recipe.fit(work.bars[fold.train], fold.seed)
    return check_positions(work.bars[fold.test], model.positions(work.bars[: fold.test.stop])[fold.test])


def seen_folds(n_bars: int, search: Search) -> FoldPlan:
    """The walk-forward parameters are compared on: as a retrain's, on the bars before those held out.

    Raises:
        NotEnoughBars: a fold would have no rows to train or to test on.
    """
    return FoldPlan(tuple(split(n_bars - held_out(n_bars, search), search.plan)))


def unseen_folds(n_bars: int, search: Search) -> FoldPlan:
    """The bars held out, in folds about as long as those of the search."""
    held, plan = held_out(n_bars, search), search.plan
    seen = n_bars - held
    length = seen * (1 - plan.first_train_fraction) / plan.folds
    folds = min(max(1, round(held / length)), held)
    # half a bar more, so that rounding never gives a bar that the search has seen
    rest = plan.model_copy(update={"folds": folds, "first_train_fraction": (seen + 0.5) / n_bars})
    return FoldPlan(tuple(split(n_bars, rest)))


def held_out(n_bars: int, search: Search) -> int:
    return int(n_bars * search.holdout)


def results(bars: Bars, first: int, positions: list[Floats], search: Search) -> Backtest:
    """Of the positions from row `first` on, fold after fold, after costs."""
    wanted = np.concatenate(positions)
    return backtest(bars[first : first + len(wanted)], wanted, search.costs, search.execution)
