"""The trend rule: signs of the price changes over declared look-backs."""

import numpy as np
import pandas as pd
import pytest

from clm_core.market.bars import Bars
from clm_core.market.look_ahead import first_leak
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.strategies.trend import LOOK_BACK_DAYS, trend


def series(closes: np.ndarray, index: pd.DatetimeIndex, timeframe: Timeframe = Timeframe.D1) -> Bars:
    prices = np.asarray(closes, dtype=float)
    columns = {name: prices.copy() for name in ("open", "high", "low", "close")}
    nanoseconds = index.as_unit("ns").asi8.copy()
    return Bars("COIN", timeframe, Calendar.ALWAYS, nanoseconds, volume=np.ones(len(prices)), **columns)


def daily(closes: np.ndarray) -> Bars:
    return series(closes, pd.date_range("2021-01-01", periods=len(closes), freq="D", tz="UTC"))


@pytest.fixture(scope="module")
def hourly() -> Bars:
    closes = np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, 6000)))
    index = pd.date_range("2021-01-01", periods=6000, freq="h", tz="UTC")
    return series(closes, index, Timeframe.H1)


def test_a_rise_is_bought_and_a_fall_sold_once_every_look_back_is_full():
    rising = trend(daily(np.arange(1.0, 301.0)))
    falling = trend(daily(np.arange(300.0, 0.0, -1.0)))
    assert (rising[120:] == 1.0).all()
    assert (falling[120:] == -1.0).all()


def test_a_look_back_before_the_first_bar_counts_nothing():
    signal = trend(daily(np.arange(1.0, 301.0)))
    assert signal[[0, 29, 30, 59, 60, 119, 120]] == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])


def test_an_unchanged_price_gives_no_signal():
    assert not trend(daily(np.full(300, 7.0))).any()


def test_look_backs_disagree_after_a_turn():
    turned = np.concatenate([np.arange(200.0), 200.0 - np.arange(1.0, 41.0)]) + 1
    assert trend(daily(turned))[-1] == pytest.approx((-1 - 1 + 1) / 3)


def test_an_outage_is_measured_by_the_clock():
    index = pd.date_range("2021-01-01", periods=300, freq="D", tz="UTC").delete(slice(150, 200))
    closes = np.where(np.arange(250) < 150, 10.0, 20.0)
    signal = trend(series(closes, index))
    # 99 days after the outage, only the longest look-back reaches back to the lower price
    assert signal[-1] == pytest.approx(1 / 3)


def test_later_bars_change_no_signal(hourly):
    assert first_leak(trend, hourly, rows=[100, 1000, 3000, 5998]) is None


def test_older_bars_than_the_longest_look_back_change_no_signal(hourly):
    memory = LOOK_BACK_DAYS[-1] * 24 + 1
    whole = trend(hourly)
    for row in (memory, 4000, 5999):
        assert trend(hourly[row + 1 - memory : row + 1])[-1] == whole[row]
