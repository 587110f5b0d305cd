"""Objectives of a search for strategies: rows of the bars, and measures of several families."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.strategy_search import Objective, StrategySearch
from clm_core.domain.vocabulary import RuleFamily
from clm_core.evolution.combinatorial import COLUMNS, GROUPS, TESTED, lower_quartile
from clm_core.evolution.rule_objectives import MeasuredRules, RuleObjectives
from clm_core.evolution.strategies import Strategy, StrategySpace
from clm_core.market.bars import Bars, Floats
from clm_core.models.strategies.families import RULES
from clm_core.models.strategies.rules import Rule
from clm_core.search.degeneracy import min_trades
from clm_core.search.folds import held_out

MIN_BARS = 1_000
"""Minimum number of bars of a search, without those held out."""
MAX_WARM_UP = 0.25
"""Largest share of the bars of a search that is look-back alone."""


def space_of(definition: StrategySearch) -> StrategySpace:
    return StrategySpace([RULES[each] for each in definition.families], definition.fixed)


def rows_of(definition: StrategySearch, n_bars: int) -> tuple[slice, slice]:
    """Rows of the search, after the look-back, and rows held out.

    Raises:
        NotEnoughBars: fewer than `MIN_BARS` bars are searched.
    """
    end = n_bars - held_out(n_bars, definition)
    if end < MIN_BARS:
        raise NotEnoughBars(
            f"{definition.symbol} {definition.timeframe}: a search for strategies needs {MIN_BARS:,} bars "
            f"before those held out, and there are {end:,}. Give more days, or hold out a smaller share"
        )
    longest = max(_longest(RULES[each], definition.fixed) for each in definition.families)
    return slice(min(longest, int(MAX_WARM_UP * end)), end), slice(end, n_bars)


def _longest(rule: Rule, fixed: Mapping[str, Any]) -> int:
    """Look-back of the candidates with the longest look-backs."""
    space = rule.params.search_space()
    highest = {name: int(getattr(each.values, "high", 0)) for name, each in space.items() if each.whole}
    return rule.bars_before(rule.params.parse(highest | dict(fixed), kind=rule.family.value))


class Measures(Protocol):
    """Measures the candidates of a search, here or elsewhere."""

    def measure(self, strategies: Sequence[Strategy]) -> MeasuredRules:
        """Measures of at least one strategy, in the order given."""
        ...


@dataclass(frozen=True, eq=False)
class MeasureInputs:
    """Inputs of the measures of a search; may be sent to another machine."""

    definition: StrategySearch
    market: MarketTerms
    bars: Bars
    rows: slice
    """Rows to trade; bars before are look-back, and bars after are never read."""

    def objectives(self, threads: int) -> "StrategyObjectives":
        """
        Raises:
            NotEnoughBars: too few rows for the test sets.
        """
        return StrategyObjectives(self.definition, self.market, self.bars, self.rows, threads)


def divided(strategies: Sequence[Strategy], count: int) -> list[Sequence[Strategy]]:
    """Consecutive parts for so many workers, two each."""
    parts = np.array_split(np.arange(len(strategies)), min(len(strategies), 2 * count))
    return [[strategies[place] for place in part] for part in parts]


def joined(parts: Sequence[MeasuredRules]) -> MeasuredRules:
    """Measures of several parts, one after the other."""
    return MeasuredRules(
        np.concatenate([each.metrics for each in parts]),
        np.concatenate([each.daily for each in parts]),
        np.concatenate([each.trades for each in parts]),
    )


class StrategyObjectives:
    """Measures strategies of several families on the same rows."""

    def __init__(
        self,
        definition: StrategySearch,
        market: MarketTerms,
        bars: Bars,
        rows: slice,
        threads: int,
        groups: int = GROUPS,
        tested: int = TESTED,
    ) -> None:
        """
        Args:
            rows: rows to trade; bars before are look-back, and bars after are never read.
            threads: number of threads; the measures do not depend on the number.
            groups, tested: groups of the rows, and groups in a test set; 1 and 1 for all rows as one set.
        """
        fixed = definition.fixed
        self._own = {
            family: RuleObjectives(
                RULES[family], market, bars, rows, threads=threads, fixed=fixed, groups=groups, tested=tested
            )
            for family in definition.families
        }
        self._n_rows = rows.stop - rows.start
        self.days: NDArray[np.int64] = self._own[definition.families[0]].days

    def measure(self, strategies: Sequence[Strategy]) -> MeasuredRules:
        """
        Args:
            strategies: at least one.
        """
        places: dict[RuleFamily, list[int]] = {}
        for place, each in enumerate(strategies):
            places.setdefault(each.family, []).append(place)
        parts = [
            self._own[family].measure([strategies[place].params for place in own])
            for family, own in places.items()
        ]
        # back into the order of the strategies
        order = np.argsort([place for own in places.values() for place in own])
        return MeasuredRules(
            np.concatenate([each.metrics for each in parts])[order],
            np.concatenate([each.daily for each in parts])[order],
            np.concatenate([each.trades for each in parts])[order],
        )

    def scores(self, measured: MeasuredRules, objectives: Sequence[Objective]) -> Floats:
        """Scores, shape (n, n_objectives): lower quartiles over the test sets; NaN for too few trades.

        The minimum is that of the trials of a tuning, see `degeneracy.min_trades`.
        """
        columns = [COLUMNS.index(each) for each in objectives]
        enough = measured.trades >= min_trades(self._n_rows)
        return np.where(enough[:, None], lower_quartile(measured.metrics)[:, columns], np.nan)

    def backtest(self, strategy: Strategy) -> Backtest:
        """Backtest over the rows."""
        return self._own[strategy.family].backtest(strategy.params)
