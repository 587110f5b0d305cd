"""Objectives of a rule strategy: lower quartiles of its metrics over the combinatorial test sets.

A candidate is backtested once, as a version with its parameters would be traded: sides of the rule, sized by
the families' own sizing, net of costs under the terms of the market. A score depends on its look-backs alone,
and is kept for the candidates with the same look-backs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.engine import RepeatedBacktest, Rows
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.search_space import Choice
from clm_core.domain.strategy_search import Objective
from clm_core.evolution.combinatorial import COLUMNS, GROUPS, TESTED, TestSets, lower_quartile
from clm_core.evolution.genes import Genes
from clm_core.evolution.pareto import Ints
from clm_core.market.bars import Bars, Floats
from clm_core.models.sizing import side_sizes, size_sides
from clm_core.models.strategies.rules import SIZING, Limits, Rule, compiled, trades

OBJECTIVES = (Objective.SHARPE_RATIO, Objective.MAX_DRAWDOWN, Objective.WIN_RATE)
DAY = 86_400_000_000_000
"""Length of a day in nanoseconds."""
CACHE_BYTES = 128 * 2**20
"""Memory for scores kept."""


@dataclass(frozen=True, eq=False)
class MeasuredRules:
    """Measures of candidates, a row a candidate."""

    metrics: Floats
    """Metrics in each set, shape (n, n_sets, 5), columns as in `COLUMNS`."""
    daily: NDArray[np.float32]
    """Sum of the net returns of each day with bars, shape (n, n_days)."""
    trades: Ints
    """Number of trades, shape (n,)."""


class RuleObjectives:
    """Objectives of the candidates of a family, as `nsga2.search` asks for: genes in, scores out.

    A score that counts trades is NaN for a candidate without a trade in more than a quarter of the sets.
    """

    def __init__(
        self,
        rule: Rule,
        market: MarketTerms,
        bars: Bars,
        rows: slice,
        objectives: Sequence[Objective] = OBJECTIVES,
        threads: int = 1,
        fixed: Mapping[str, Any] | None = None,
        groups: int = GROUPS,
        tested: int = TESTED,
    ) -> None:
        """
        Args:
            rule: family.
            market: terms of the backtests.
            bars: bars known. Those before `rows` are look-back; those after are laid aside, and never read.
            rows: rows to trade, cut into groups.
            objectives: metrics that are the scores, in order.
            threads: number of threads; the scores do not depend on the number.
            fixed: parameters that are not searched for, instead of their defaults.
            groups, tested: groups of the rows, and groups in a test set; 1 and 1 for all rows as one set.

        Raises:
            NotEnoughBars: a group would have fewer than two bars.
        """
        self._fixed = dict(fixed or {})
        every = rule.params.search_space()
        self.space = {name: every[name] for name in every if name not in self._fixed}
        self.genes = Genes.of(self.space)
        known = bars[: rows.stop]
        self._traded = slice(rows.start or 0, len(known))
        traded = known[self._traded]
        self.sets = TestSets.of(len(traded), groups, tested)
        self.days, self._day_starts = np.unique(traded.time // DAY, return_index=True)
        self._rule = rule
        self._bars = known
        self._defaults = rule.params.parse(self._fixed)
        self._columns = [COLUMNS.index(each) for each in objectives]
        self._threads = threads
        self._periods_per_year = traded.periods_per_year
        self._market = market
        self._long_only = market.terms.long_only
        self._sizes = side_sizes(known, SIZING)
        self._open, self._close = (np.ascontiguousarray(each) for each in (known.open, known.close))
        self._bounds = np.array([0, *(each.stop for each in known.stretches())])
        terms = market.terms
        holding = market.holding(traded)
        self._repeated: Callable[[], RepeatedBacktest] = lambda: RepeatedBacktest(
            traded, terms.costs, terms.execution, holding
        )
        self._look_backs = [name for name in self.space if name not in Limits._fields]
        stretches = [known[rows] for rows in known.stretches()]
        # of no method: a cache that knows its owner would outlive it until the next garbage collection
        self._score = lru_cache(max(1, CACHE_BYTES // (8 * max(len(known), 1))))(
            partial(_score_of, rule, stretches)
        )

    def __call__(self, values: Floats) -> Floats:
        """Scores of candidates, shape (n, n_objectives).

        Args:
            values: genes, shape (n, n_genes).
        """
        return lower_quartile(self.metrics(values))[:, self._columns]

    def metrics(self, values: Floats) -> Floats:
        """Metrics of candidates in each set, shape (n, n_sets, 5), columns as in `COLUMNS`."""
        genomes = self.genes.genomes(self.space, values)
        return self.measure([dict(zip(self.space, each, strict=True)) for each in genomes]).metrics

    def measure(self, candidates: Sequence[Mapping[str, Choice]]) -> MeasuredRules:
        """
        Args:
            candidates: searched parameters of each candidate.
        """
        metrics = np.empty((len(candidates), len(self.sets), len(COLUMNS)))
        daily = np.empty((len(candidates), len(self.days)), np.float32)
        trades_made = np.zeros(len(candidates), np.int64)
        # neighbours share their scores
        order = sorted(range(len(candidates)), key=lambda place: self._key(candidates[place]))

        def measure(places: Ints) -> None:
            repeated = self._repeated()
            for place in places:
                returns, closed = repeated.run(self.targets(candidates[place])[self._traded])
                metrics[place] = self._cut(returns, closed)
                daily[place] = np.add.reduceat(returns, self._day_starts)
                trades_made[place] = len(closed)

        parts = [np.array(order)[part] for part in _parts(len(order), self._threads)]
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(measure, parts))
        return MeasuredRules(metrics, daily, trades_made)

    def backtest(self, params: Mapping[str, Choice]) -> Backtest:
        """Backtest of a candidate over the traded rows."""
        return self._market.backtest(self._bars[self._traded], self.targets(params)[self._traded])

    def targets(self, params: Mapping[str, Choice]) -> Floats:
        """Positions of a candidate after each known bar, shape (n_known,)."""
        limits = self._limits(params)
        given = self._fixed | dict(zip(self._look_backs, self._key(params), strict=True))
        parsed = self._rule.params.parse(given, kind=self._rule.family.value)
        entry, exit_ = (self._score(look_backs) for look_backs in self._rule.look_backs(parsed))
        sides = _sides(self._open, self._close, entry, exit_, limits, self._bounds)
        positions = size_sides(sides, self._sizes)
        return np.maximum(positions, 0.0) if self._long_only else positions

    def _cut(self, returns: Floats, closed: Rows) -> Floats:
        exits: Ints = np.ascontiguousarray(closed["exit_bar"])
        gains: Floats = np.ascontiguousarray(closed["net_return"])
        return self.sets.metrics(returns, exits, gains, self._periods_per_year)

    def _key(self, params: Mapping[str, Choice]) -> tuple[Choice, ...]:
        return tuple(params[name] for name in self._look_backs)

    def _limits(self, params: Mapping[str, Choice]) -> Limits:
        def limit(name: str) -> float:
            value = params.get(name, getattr(self._defaults, name))
            return math.inf if value is None else float(value)

        return Limits(limit("threshold"), limit("stop_loss"), limit("take_profit"), int(limit("max_holding")))


def _score_of(rule: Rule, stretches: Sequence[Bars], look_backs: tuple[int, ...]) -> Floats:
    """Score after each bar of the stretches, shape (n_bars,)."""
    return np.concatenate([rule.score(stretch, *look_backs) for stretch in stretches])


def _parts(count: int, threads: int) -> list[Ints]:
    """Consecutive places for the threads, several parts each."""
    return [part for part in np.array_split(np.arange(count), 4 * threads) if len(part)]


@compiled
def _sides(
    open_: Floats, close: Floats, entry: Floats, exit_: Floats, limits: Limits, bounds: Ints
) -> Floats:
    """Sides after each bar, stretch by stretch, shape (n_bars,)."""
    sides = np.empty(len(close))
    for number in range(len(bounds) - 1):
        first = bounds[number]
        end = bounds[number + 1]
        part = trades(open_[first:end], close[first:end], entry[first:end], exit_[first:end], limits)
        # a loop is compiled in a tenth of the time of the assignment of a slice
        for row in range(len(part)):
            sides[first + row] = part[row]
    return sides
