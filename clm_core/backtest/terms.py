"""Backtests under the terms of a market: costs, costs of holding, execution, and long-only markets."""

from dataclasses import dataclass, replace

import numpy as np

from clm_core.backtest.engine import backtest, check_positions
from clm_core.backtest.results import Backtest
from clm_core.domain.costs import Costs
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.terms import TradingTerms
from clm_core.market.bars import Bars, Floats
from clm_core.market.carry import NO_CARRY, Carry, HoldingRates, holding_rates


@dataclass(frozen=True, eq=False)
class MarketTerms:
    """Terms of a market with the stored payments that the terms refer to."""

    terms: TradingTerms
    carry: Carry = NO_CARRY

    def under(self, rules: ExecutionRules) -> "MarketTerms":
        """The terms with the execution of a version; the starting capital stays."""
        execution = self.terms.execution.under(rules)
        return replace(self, terms=self.terms.model_copy(update={"execution": execution}))

    def at_costs(self, costs: Costs | None) -> "MarketTerms":
        """The terms at other costs of trading; None keeps the costs."""
        if costs is None:
            return self
        return replace(self, terms=self.terms.model_copy(update={"costs": costs}))

    def holding(self, bars: Bars) -> HoldingRates | None:
        """Costs of holding into each bar; None if holding is free."""
        carry = replace(self.carry, dividends=None) if self.terms.adjusted else self.carry
        return holding_rates(bars, self.terms.holding, carry)

    def tradable(self, positions: Floats) -> Floats:
        """Targets that the market can trade: a long-only market trades targets below 0 as 0."""
        return np.maximum(positions, 0.0) if self.terms.long_only else positions

    def backtest(self, bars: Bars, positions: Floats) -> Backtest:
        """Backtest of target positions under the terms, starting flat.

        Raises:
            InvalidPositions: a bar has no finite position in [-1, 1].
            NotEnoughBars: there are no bars.
        """
        targets = self.tradable(check_positions(bars, positions))
        return backtest(bars, targets, self.terms.costs, self.terms.execution, self.holding(bars))


def buy_and_hold(market: MarketTerms, bars: Bars) -> Backtest:
    """Fully long over the bars, under the same terms."""
    return market.backtest(bars, np.ones(len(bars)))
