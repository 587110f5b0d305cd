"""Returns at equal volatility: size is no skill."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.backtest.agreement import rank_correlation
from clm_core.evidence import paired
from clm_core.evidence.equal_volatility import (
    ANNUAL_VOLATILITY,
    WARM_UP,
    at_equal_volatility,
    compare,
    compare_days,
    trailing_volatility,
)
from clm_core.market.bars import Floats

YEAR = 8760.0


def garch(rng: np.random.Generator, bars: int, mean: float) -> Floats:
    """GARCH(1,1) returns with a mean in units of the deviation."""
    returns = np.empty(bars)
    variance = 1.0
    for row, shock in enumerate(rng.normal(size=bars)):
        returns[row] = np.sqrt(variance) * (shock + mean)
        variance = 0.03 + 0.07 * returns[row] ** 2 + 0.9 * variance
    return 0.001 * returns


@given(scale=st.floats(0.05, 20.0), seed=st.integers(0, 10**6))
def test_multiplying_all_positions_changes_no_comparison(scale: float, seed: int) -> None:
    ours, theirs = np.random.default_rng(seed).normal(0.0, 0.01, (2, 400))
    plain = compare(ours, theirs, YEAR)
    scaled = compare(scale * ours, theirs, YEAR)
    assert scaled.n == plain.n
    np.testing.assert_allclose(scaled.total, plain.total, rtol=1e-9, atol=1e-12)


def test_leverage_alone_is_called_better_on_plain_returns_and_never_at_equal_volatility() -> None:
    theirs = garch(np.random.default_rng(1), 20_000, 0.05)
    ours = 3.0 * theirs + np.random.default_rng(2).normal(0.0, 1e-5, 20_000)
    plain = paired.extend(paired.PairedRecord(), ours, theirs)
    assert paired.stand(plain, 0.05, 500) is paired.Standing.BETTER
    assert paired.stand(compare(ours, theirs, YEAR), 0.05, 500) is paired.Standing.UNDECIDED


def test_a_better_sharpe_ratio_at_a_third_of_the_size_is_called_better() -> None:
    rng = np.random.default_rng(3)
    theirs = garch(rng, 20_000, 0.02)
    ours = garch(rng, 20_000, 0.12) / 3.0
    assert paired.stand(compare(ours, theirs, YEAR), 0.05, 500) is paired.Standing.BETTER


def test_the_scaled_returns_have_the_stated_volatility() -> None:
    returns = garch(np.random.default_rng(2), 50_000, 0.0)
    scaled = at_equal_volatility(returns, YEAR)
    assert np.nanstd(scaled) * np.sqrt(YEAR) == pytest.approx(ANNUAL_VOLATILITY, rel=0.05)


def test_the_volatility_of_a_bar_is_known_before_the_bar() -> None:
    returns = np.random.default_rng(3).normal(0.0, 0.01, 300)
    changed = returns.copy()
    changed[200:] *= 50.0
    np.testing.assert_array_equal(trailing_volatility(returns)[:201], trailing_volatility(changed)[:201])


def test_the_warm_up_and_bars_without_a_position_and_those_that_do_not_count_are_left_out() -> None:
    ours, theirs = np.random.default_rng(4).normal(0.0, 0.01, (2, 300))
    assert compare(ours, theirs, YEAR).n == 300 - WARM_UP
    assert compare(ours, theirs, YEAR, np.arange(300) >= WARM_UP + 100).n == 150
    assert compare(ours, np.zeros(300), YEAR).n == 0


def test_a_return_after_months_without_a_position_counts_at_most_double() -> None:
    returns = np.concatenate([np.random.default_rng(5).normal(0.0, 0.01, 5000), np.zeros(100_000)])
    volatility = trailing_volatility(returns)
    assert volatility[-1] >= 0.499 * np.sqrt(np.mean(np.square(returns)))


def test_rank_correlation_is_spearmans() -> None:
    ours, theirs = np.random.default_rng(6).normal(size=(2, 200))
    assert rank_correlation(ours, np.exp(ours)) == pytest.approx(1.0)
    assert rank_correlation(ours, -ours) == pytest.approx(-1.0)
    # 1 - 6 sum(d^2) / (n (n^2 - 1)) with d = 1, 1, 1, 1, 0 for ranks 1 to 5; copies keep the ratio
    first = np.tile([1.0, 2.0, 3.0, 4.0, 5.0], 20)
    second = np.tile([2.0, 1.0, 4.0, 3.0, 5.0], 20)
    assert rank_correlation(first, second) == pytest.approx(1.0 - 6.0 * 4.0 / (5.0 * 24.0))
    assert np.isnan(rank_correlation(ours, np.ones(200)))
    assert np.isnan(rank_correlation(ours[:40], theirs[:40]))


def test_days_sum_their_bars_and_an_unfinished_day_waits() -> None:
    time = np.arange(240, dtype=np.int64) * 3_600_000_000_000
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.001, 0.01, (2, 240))
    counted = np.ones(240, dtype=np.bool_)
    whole = compare_days(time, 3_600_000_000_000, ours, theirs, 8760.0, counted)
    # the volatility is known from the 51st bar, in the third of ten days
    assert whole.n == 8
    bars = compare(ours, theirs, 8760.0)
    assert whole.n * whole.first + whole.total == pytest.approx(bars.n * bars.first + bars.total)
    unfinished = compare_days(time[:-1], 3_600_000_000_000, ours[:-1], theirs[:-1], 8760.0, counted[:-1])
    assert unfinished.n == 7


def test_bars_that_do_not_count_change_nothing() -> None:
    time = np.arange(2400, dtype=np.int64) * 3_600_000_000_000
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.001, 0.01, (2, 2400))
    counted = rng.random(2400) < 0.8
    lucky = np.where(counted, ours, 1.0)
    first, other = (
        compare_days(time, 3_600_000_000_000, each, theirs, 8760.0, counted) for each in (ours, lucky)
    )
    assert first == other
    assert compare_days(time[:0], 3_600_000_000_000, ours[:0], theirs[:0], 8760.0, counted[:0]).n == 0
