"""Series of the same market are found by their daily log returns."""

import math

import numpy as np
import pytest

from clm_core.market.bars import Bars, Floats
from clm_core.market.same_market import DailyReturns, Likeness, daily_log_returns, likeness
from clm_core.market.timeframes import Calendar, Timeframe


def bars(closes: Floats, timeframe: Timeframe = Timeframe.H1) -> Bars:
    time = np.arange(len(closes), dtype=np.int64) * timeframe.nanoseconds
    columns = (closes, closes, closes, closes, np.ones(len(closes)))
    return Bars("BTCUSD", timeframe, Calendar.ALWAYS, time, *columns)


def walk(days: int, seed: int = 1) -> Floats:
    return np.asarray(
        100.0 * np.exp(np.cumsum(0.01 * np.random.default_rng(seed).standard_normal(24 * days)))
    )


def mixed(correlation: float, days: int = 300) -> tuple[DailyReturns, DailyReturns]:
    common, own = np.random.default_rng(3).standard_normal((2, days))
    own -= common * (common @ own) / (common @ common)
    common, own = (each - each.mean() for each in (common, own))
    other = correlation * common / common.std() + math.sqrt(1.0 - correlation**2) * own / own.std()
    return DailyReturns(np.arange(days), common), DailyReturns(np.arange(days), other)


def test_daily_returns_go_from_close_to_close() -> None:
    closes = np.exp(np.arange(72.0))
    daily = daily_log_returns(bars(closes))
    np.testing.assert_array_equal(daily.days, [1, 2])
    np.testing.assert_allclose(daily.returns, [24.0, 24.0])
    assert len(daily_log_returns(bars(closes[:20])).days) == 0


def test_another_timeframe_or_quote_of_a_series_is_the_same_market() -> None:
    closes = walk(100)
    hourly = daily_log_returns(bars(closes))
    daily = daily_log_returns(bars(closes[23::24], Timeframe.D1))
    inverted = daily_log_returns(bars(1.0 / closes))
    assert likeness(hourly, daily) == Likeness(pytest.approx(1.0), 99)
    assert likeness(hourly, inverted).correlation == pytest.approx(-1.0)
    assert likeness(hourly, daily).is_same_market
    assert likeness(hourly, inverted).is_same_market


@pytest.mark.parametrize(
    ("correlation", "same"),
    [(0.965, True), (0.905, True), (0.895, False), (0.81, False), (-0.95, True), (0.0, False)],
    ids=["another venue", "just", "hardly", "BTC and ETH", "inverted", "unrelated"],
)
def test_nine_tenths_in_absolute_value_are_one_market(correlation: float, same: bool) -> None:
    comparison = likeness(*mixed(correlation))
    assert comparison.correlation == pytest.approx(correlation, abs=0.005)
    assert comparison.is_same_market is same


@pytest.mark.parametrize(("days", "same"), [(61, True), (60, False)], ids=["sixty", "fewer"])
def test_fewer_than_sixty_common_days_tell_nothing(days: int, same: bool) -> None:
    closes = walk(days)
    comparison = likeness(daily_log_returns(bars(closes)), daily_log_returns(bars(closes)))
    assert (comparison.days, comparison.is_same_market) == (days - 1, same)


def test_a_series_that_never_moves_is_no_market_s_copy() -> None:
    still = daily_log_returns(bars(np.full(24 * 100, 5.0)))
    comparison = likeness(still, still)
    assert math.isnan(comparison.correlation)
    assert not comparison.is_same_market
