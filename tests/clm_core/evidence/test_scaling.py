"""Returns at a stated volatility of weekly returns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.backtest.metrics import max_drawdown, volatility
from clm_core.evidence.scaling import (
    MIN_SPANS,
    bars_a_week,
    bars_summed,
    scaled_drawdown,
    scaled_returns,
    weekly_volatility,
)
from clm_core.market.bars import Floats

HOURLY = 8760.0
YEAR = 8760


def autoregressive(slope: float, n_bars: int, seed: int) -> Floats:
    """AR(1) returns whose bars have a volatility of 0.001, shape (n_bars,)."""
    from scipy.signal import lfilter

    noise = np.random.default_rng(seed).standard_normal(n_bars)
    return np.asarray(0.001 * np.sqrt(1.0 - slope**2) * lfilter([1.0], [1.0, -slope], noise))


def variance_ratio(slope: float, q: int) -> float:
    """Variance of a sum of q AR(1) returns over q times that of one (Lo & MacKinlay 1988, equation 6)."""
    lags = np.arange(1, q)
    return float(1.0 + 2.0 * ((1.0 - lags / q) * slope**lags).sum())


@pytest.mark.parametrize(
    ("periods_per_year", "bars"),
    [(8760.0, 168), (365.0, 7), (252.0, 5), (6200.0, 119), (52.18, 1), (12.0, 1)],
    ids=["hours", "days", "days of equities", "hours without weekends", "weeks", "months"],
)
def test_a_week_has_as_many_bars_as_the_market_is_open_for(periods_per_year: float, bars: int) -> None:
    assert bars_a_week(periods_per_year) == bars


def test_records_of_less_than_half_a_year_are_measured_on_shorter_sums() -> None:
    half_a_year = MIN_SPANS * 168
    assert [bars_summed(bars, HOURLY) for bars in (half_a_year, half_a_year - 1, 260, 10, 0)] == [
        168,
        167,
        10,
        1,
        1,
    ]


def test_scaled_returns_have_the_stated_weekly_volatility() -> None:
    returns = 0.01 * np.random.default_rng(1).standard_t(3, 3000)
    assert weekly_volatility(scaled_returns(returns, 365.0, 0.1), 365.0) == pytest.approx(0.1)


def test_the_weekly_volatility_of_weekly_bars_is_that_of_the_bars() -> None:
    returns = 0.02 * np.random.default_rng(2).standard_normal(500)
    assert weekly_volatility(returns, 52.18) == pytest.approx(volatility(returns, 52.18), rel=1e-12)


def test_the_weekly_variance_of_independent_returns_is_unbiased_also_on_a_short_record() -> None:
    rng = np.random.default_rng(3)
    short, long = (
        np.mean([weekly_volatility(0.01 * rng.standard_t(5, bars), HOURLY) ** 2 for _ in range(400)])
        for bars in (1000, YEAR)
    )
    expected = 0.01**2 * 5 / 3 * HOURLY
    # an error of 22 % for the variance of a record, over 400 of them
    assert short == pytest.approx(expected, rel=3.5 * 0.22 / 20)
    assert long == pytest.approx(expected, rel=3.5 * 0.16 / 20)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100))
def test_independent_returns_have_about_the_drawdown_of_a_scale_by_their_bars(seed: int) -> None:
    returns = 0.001 * np.random.default_rng(seed).standard_normal(3 * YEAR)
    by_bars = abs(max_drawdown(returns * 0.1 / volatility(returns, HOURLY)))
    # four standard errors of the weekly volatility, 1 / sqrt(3 * 156)
    assert scaled_drawdown(returns, HOURLY, 0.1) == pytest.approx(by_bars, rel=0.2)


@pytest.mark.parametrize("slope", [0.9, 0.5, -0.5])
def test_the_weekly_volatility_of_an_autoregression_is_the_known_one(slope: float) -> None:
    returns = autoregressive(slope, 60 * YEAR, seed=4)
    expected = 0.001 * np.sqrt(HOURLY * variance_ratio(slope, 168))
    long_run = 0.001 * np.sqrt(HOURLY * (1.0 + slope) / (1.0 - slope))
    assert weekly_volatility(returns, HOURLY) == pytest.approx(expected, rel=0.04)
    assert expected == pytest.approx(long_run, rel=0.06)


def test_reverting_returns_are_judged_at_their_own_weekly_volatility_too() -> None:
    returns = autoregressive(-0.5, 3 * YEAR, seed=5)
    by_bars = abs(max_drawdown(returns * 0.1 / volatility(returns, HOURLY)))
    assert scaled_drawdown(returns, HOURLY, 0.1) > 1.4 * by_bars


@settings(max_examples=50, deadline=None)
@given(
    size=st.floats(1e-6, 100.0),
    slope=st.sampled_from([-0.5, 0.0, 0.9]),
    bars=st.sampled_from([30, 500, 5000]),
    seed=st.integers(0, 100),
)
def test_the_size_of_the_positions_leaves_the_scaled_drawdown_unchanged(
    size: float, slope: float, bars: int, seed: int
) -> None:
    returns = autoregressive(slope, bars, seed)
    assert scaled_drawdown(size * returns, HOURLY, 0.1) == pytest.approx(
        scaled_drawdown(returns, HOURLY, 0.1)
    )


def test_a_factor_that_would_take_all_the_capital_is_a_drawdown_of_everything() -> None:
    returns = np.resize([1e-5, -1e-5], 5000)
    returns[100] = -0.05
    assert scaled_drawdown(returns, 10.0, 0.1) == 1.0


def test_a_strategy_that_never_trades_has_no_drawdown() -> None:
    assert scaled_drawdown(np.zeros(100), 365.0, 0.1) == 0.0


@pytest.mark.parametrize("value", [0.01, np.nan, np.inf, 1e200])
def test_returns_without_a_volatility_have_no_scaled_drawdown(value: float) -> None:
    with np.errstate(all="ignore"):
        assert not np.isfinite(scaled_drawdown(np.full(100, value), 365.0, 0.1))


@pytest.mark.parametrize("returns", [np.array([]), np.array([0.01]), np.resize([0.01, -0.01], 26 * 168)])
def test_returns_of_one_bar_or_that_cancel_out_within_every_week_have_no_weekly_volatility(
    returns: Floats,
) -> None:
    assert np.isnan(weekly_volatility(returns, HOURLY))


def test_squares_that_overflow_refuse() -> None:
    returns = 1e200 * np.random.default_rng(6).standard_normal(100)
    with np.errstate(all="ignore"):
        assert np.isnan(scaled_drawdown(returns, 365.0, 0.1))
