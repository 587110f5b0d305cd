"""Returns at a stated volatility."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.backtest.metrics import max_drawdown, volatility
from clm_core.evidence.scaling import scaled_drawdown, scaled_returns


def test_scaled_returns_have_the_stated_volatility() -> None:
    returns = np.random.default_rng(1).standard_t(3, 3000) * 0.01
    assert volatility(scaled_returns(returns, 365.0, 0.1), 365.0) == pytest.approx(0.1)


def test_the_drawdown_of_returns_at_the_stated_volatility_is_their_own() -> None:
    returns = np.random.default_rng(2).standard_normal(3000)
    returns *= 0.1 / volatility(returns, 365.0)
    assert scaled_drawdown(returns, 365.0, 0.1) == pytest.approx(abs(max_drawdown(returns)))


@settings(max_examples=50, deadline=None)
@given(size=st.floats(1e-6, 100.0), seed=st.integers(0, 100))
def test_the_size_of_the_positions_leaves_the_scaled_drawdown_unchanged(size: float, seed: int) -> None:
    returns = 0.01 * np.random.default_rng(seed).standard_normal(500)
    assert scaled_drawdown(size * returns, 365.0, 0.1) == pytest.approx(scaled_drawdown(returns, 365.0, 0.1))


def test_a_factor_that_would_take_all_the_capital_is_a_drawdown_of_everything() -> None:
    returns = np.resize([1e-5, -1e-5], 5000)
    returns[100] = -0.05
    assert scaled_drawdown(returns, 10.0, 0.1) == 1.0


def test_a_strategy_that_never_trades_has_no_drawdown() -> None:
    assert scaled_drawdown(np.zeros(100), 365.0, 0.1) == 0.0


@pytest.mark.parametrize("value", [0.01, np.nan, np.inf])
def test_returns_without_a_volatility_have_no_scaled_drawdown(value: float) -> None:
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(scaled_drawdown(np.full(100, value), 365.0, 0.1))
