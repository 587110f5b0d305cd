"""Rule strategies at their defaults beside a verdict."""

import numpy as np
import pytest

from clm_core.backtest.declared_rules import run_declared_rules
from clm_core.backtest.metrics import summarise
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.domain.terms import TradingTerms
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import catalog

TESTED = slice(900, None)


@pytest.fixture(scope="module")
def bars() -> Bars:
    rng = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.006, 2_000)))
    opens = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(opens, close) * 1.002
    low = np.minimum(opens, close) * 0.998
    time = (438_288 + np.arange(2_000)) * Timeframe.H1.nanoseconds
    return Bars("COIN", Timeframe.H1, Calendar.ALWAYS, time, opens, high, low, close, np.ones(2_000))


@pytest.mark.parametrize("long_only", [False, True])
def test_each_rule_has_the_result_of_a_version_retrained_with_the_defaults_of_the_family(
    bars: Bars, long_only: bool
) -> None:
    terms = TradingTerms(
        costs=Costs(fee_bps=3), execution=Execution(rebalance_band=0.02), long_only=long_only
    )
    market = MarketTerms(terms)
    rules = run_declared_rules(market, bars, TESTED)
    assert [each.family for each in rules] == list(RuleFamily)
    for each in rules:
        model = catalog.recipe(ModelType.OTHER, {}, Costs(), each.family).fit(bars, seed=0)
        served = market.backtest(bars[TESTED], model.positions(bars)[TESTED])
        assert np.array_equal(each.result.returns, served.returns)
        assert each.metrics == summarise(served, bars.periods_per_year)
        assert each.metrics.trades > 0
        assert (each.result.exposure < 0).any() != long_only
