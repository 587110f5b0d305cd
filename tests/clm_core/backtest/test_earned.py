"""Returns earned by a position between its execution and the next."""

import numpy as np
import pytest

from clm_core.backtest.earned import earned_returns
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.execution import Execution
from clm_core.domain.terms import TradingTerms
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe

FREE = Costs(fee_bps=0.0, slippage_bps=0.0)


def bars(n: int) -> Bars:
    rng = np.random.default_rng(1)
    closes = 100.0 * np.exp(np.cumsum(0.01 * rng.standard_normal(n)))
    opens = closes * np.exp(0.001 * rng.standard_normal(n))
    columns = (opens, np.maximum(opens, closes), np.minimum(opens, closes), closes, np.ones(n))
    return Bars("BTCUSD", Timeframe.H1, Calendar.ALWAYS, np.arange(n) * Timeframe.H1.nanoseconds, *columns)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize(
    "holding",
    [HoldingCosts(), HoldingCosts(funding_bps_per_8h=20.0), HoldingCosts(borrow_bps_per_year=3000.0)],
    ids=["free", "funding", "borrow"],
)
def test_a_small_position_earns_what_the_engine_pays_out(side: float, holding: HoldingCosts) -> None:
    """Costs of holding by side move the returns bar by bar; the other half is the same for both sides."""
    series = bars(200)
    market = MarketTerms(TradingTerms(costs=FREE, holding=holding, execution=Execution(rebalance_band=1e-9)))
    size = 1e-3
    result = market.backtest(series, np.full(200, side * size))
    rates = market.holding(series)
    common = 0.0 if rates is None else float((rates.long[2:] + rates.short[2:]).sum()) / 2.0
    expected = side * earned_returns(market, series).sum() - common
    assert result.returns.sum() / size == pytest.approx(expected, abs=2e-3)
