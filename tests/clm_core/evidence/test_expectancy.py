"""The lower bound of the expectancy of a trade is as wrong as it says."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from clm_core.evidence.expectancy import MIN_TRADES, expectancy
from clm_core.market.bars import Floats

PAYOFFS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "symmetric": lambda rng, n: rng.standard_normal(n),
    "trend-like": lambda rng, n: rng.standard_exponential(n) - 1.0,
    "option-like": lambda rng, n: 1.0 - rng.standard_exponential(n),
}


@pytest.mark.parametrize("payoff", PAYOFFS.values(), ids=PAYOFFS)
@pytest.mark.parametrize("trades", [50, 200])
def test_trades_without_an_edge_have_a_positive_bound_in_one_of_twenty_samples(
    payoff: Callable[[np.random.Generator, int], Floats], trades: int
) -> None:
    rng = np.random.default_rng(7)
    samples = 600
    wrong = np.mean([expectancy(payoff(rng, trades), 0.95, 0, 300).low > 0.0 for _ in range(samples)])
    # 5 % and three Monte-Carlo errors
    assert wrong <= 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / samples)


def test_a_trend_payoff_that_wins_a_third_of_the_time_has_a_positive_bound() -> None:
    rng = np.random.default_rng(3)
    wins = rng.random(300) < 0.35
    returns = np.where(wins, 0.04 * rng.standard_exponential(300), -0.01 * rng.standard_exponential(300))
    measured = expectancy(returns, 0.95, 0)
    assert 0.0 < measured.low < measured.mean


def test_equal_trades_have_equal_bounds_at_any_size() -> None:
    returns = np.random.default_rng(5).standard_normal(120) + 0.2
    once = expectancy(returns, 0.95, 0)
    assert expectancy(returns.copy(), 0.95, 0) == once
    assert expectancy(0.4 * returns, 0.95, 0).low == pytest.approx(0.4 * once.low)


@pytest.mark.parametrize(
    "returns",
    [
        np.zeros(0),
        np.resize([0.01, 0.02], MIN_TRADES - 1),
        np.full(100, 0.01),
        np.append(np.ones(99), np.nan),
    ],
    ids=["no trade", "too few", "constant", "not finite"],
)
def test_trades_that_say_nothing_have_no_bound(returns: Floats) -> None:
    assert math.isnan(expectancy(returns, 0.95, 0).low)


def test_a_rare_loss_that_some_resamples_miss_leaves_no_positive_bound() -> None:
    returns = np.full(60, 0.01)
    returns[7] = -0.3
    assert not expectancy(returns, 0.95, 0).low > 0.0
