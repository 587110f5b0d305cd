"""Baselines of a verdict: buy and hold, hold at the same volatility, and the trend rule."""

import numpy as np
import pandas as pd
import pytest

from clm_core.backtest.baselines import run_baselines
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.costs import Costs
from clm_core.domain.terms import TradingTerms
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe

DAYS = 500
TESTED = slice(200, DAYS)


def rising() -> Bars:
    close = 100.0 * 1.002 ** np.arange(DAYS)
    time = pd.Timestamp("2021-01-01", tz="UTC").value + np.arange(DAYS) * Timeframe.D1.nanoseconds
    columns = {name: close.copy() for name in ("open", "high", "low", "close")}
    return Bars("COIN", Timeframe.D1, Calendar.ALWAYS, time, volume=np.ones(DAYS), **columns)


def halved(bars: Bars, signal: np.ndarray) -> np.ndarray:
    assert len(bars) == len(signal)
    return 0.5 * signal


def test_the_three_baselines_trade_the_tested_rows_under_the_terms():
    market = MarketTerms(TradingTerms(costs=Costs(fee_bps=10, slippage_bps=0)))
    hold, sized, trend = run_baselines(market, rising(), TESTED, halved)
    assert [hold.name, sized.name, trend.name] == ["buy_and_hold", "hold_at_volatility", "trend"]
    assert {len(each.result.returns) for each in (hold, sized, trend)} == {DAYS - 200}
    assert hold.metrics.exposure == pytest.approx(1.0, abs=0.01)
    assert 0.4 < sized.metrics.exposure < 0.75
    assert hold.result.costs_paid > sized.result.costs_paid > 0


def test_the_trend_rule_looks_back_before_the_tested_rows():
    market = MarketTerms(TradingTerms())
    _, _, trend = run_baselines(market, rising(), TESTED, lambda _, signal: signal)
    # decided on the close of the first tested bar, held from the open of the second
    assert trend.result.exposure[1] == pytest.approx(1.0, abs=0.01)


def test_a_long_only_market_shorts_no_baseline():
    bars = rising()
    falling = Bars(
        "COIN",
        bars.timeframe,
        bars.calendar,
        bars.time.copy(),
        *(getattr(bars, name)[::-1].copy() for name in ("open", "high", "low", "close", "volume")),
    )
    market = MarketTerms(TradingTerms(long_only=True))
    _, _, trend = run_baselines(market, falling, TESTED, lambda _, signal: signal)
    assert not trend.result.exposure.any()
