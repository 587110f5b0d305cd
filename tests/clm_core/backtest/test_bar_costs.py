"""Costs of each bar add up to the costs of the backtest."""

import numpy as np
import pytest
from panels import a_market

from clm_core.backtest.bar_costs import costs_by_bar
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.terms import TradingTerms

BARS = a_market("COSTUSD", 400, 1)
POSITIONS = np.sin(np.arange(400) / 9.0)


@pytest.mark.parametrize(
    "holding",
    [
        pytest.param(HoldingCosts(), id="free holding"),
        pytest.param(HoldingCosts(funding_bps_per_8h=3.0, borrow_bps_per_year=900.0), id="funding, borrow"),
        pytest.param(HoldingCosts(funding_bps_per_8h=-5.0), id="funding received by longs"),
    ],
)
def test_costs_by_bar_add_up_to_the_costs_paid(holding: HoldingCosts) -> None:
    market = MarketTerms(TradingTerms(costs=Costs(fee_bps=10.0, slippage_bps=5.0), holding=holding))
    result = market.backtest(BARS, POSITIONS)
    before = np.concatenate([[market.terms.execution.initial_cash], result.equity[:-1]])
    paid = float(costs_by_bar(BARS, result, market) @ before)
    assert paid == pytest.approx(result.costs_paid + result.holding_costs, rel=1e-3)


def test_a_flat_strategy_pays_nothing() -> None:
    market = MarketTerms(TradingTerms(holding=HoldingCosts(funding_bps_per_8h=3.0)))
    flat = np.zeros(len(BARS))
    assert not costs_by_bar(BARS, market.backtest(BARS, flat), market).any()
