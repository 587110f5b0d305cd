"""Trial runs: sets of parameters on their way through the folds of a walk-forward."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.market.bars import Bars, Floats
from clm_core.search.folds import FoldPlan, FoldTask, backtest_folds


@dataclass(eq=False)
class TrialRun:
    """A set of parameters under evaluation: each fold with every seed, then the next fold."""

    params: Mapping[str, Any]
    fold_plan: FoldPlan
    first_seed: int
    ids: tuple[UUID, ...]
    """Trial ids in the ledger, one per seed."""
    positions: list[Floats] = field(default_factory=list)
    """Positions computed so far: fold by fold, and within a fold seed by seed."""
    attempts: int = 1
    """Attempts at the fold being computed."""
    failure: str | None = None
    """Error of the fold that ended the run, if any."""
    is_pruned: bool = False
    """True if the run was stopped early because of poor results."""

    def next_fold(self) -> FoldTask:
        number, seed = divmod(len(self.positions), len(self.ids))
        return self.fold_plan.fold(number, self.params, self.first_seed + seed)

    @property
    def folds(self) -> int:
        """Number of folds completed with every seed."""
        return len(self.positions) // len(self.ids)

    @property
    def is_between_folds(self) -> bool:
        """True if every seed has completed the same number of folds."""
        return len(self.positions) % len(self.ids) == 0

    @property
    def is_done(self) -> bool:
        return self.folds == len(self.fold_plan.folds)

    @property
    def share(self) -> float:
        """Fraction of the folds completed, 0..1."""
        return len(self.positions) / (len(self.fold_plan.folds) * len(self.ids))

    def add(self, positions: Floats) -> None:
        self.positions.append(positions)
        self.attempts = 1

    def of_seed(self, number: int) -> list[Floats]:
        """Positions of one seed, a fold each."""
        return self.positions[number :: len(self.ids)]


def seed_backtests(run: TrialRun, bars: Bars, market: MarketTerms) -> list[Backtest]:
    """Backtests over the folds completed so far, one per seed, without the seeds that have no fold yet."""
    started = filter(None, map(run.of_seed, range(len(run.ids))))
    return [backtest_folds(bars, run.fold_plan.first, positions, market) for positions in started]
