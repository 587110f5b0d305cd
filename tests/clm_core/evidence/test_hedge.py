import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clm_core.evidence.hedge import WARM_UP, gains, hedge_path, learning_rate, regret_bound


@st.composite
def gained(draw: st.DrawFn) -> np.ndarray:
    shape = (draw(st.integers(1, 60)), draw(st.integers(2, 5)))
    return draw(arrays(np.float64, shape, elements=st.floats(0, 1)))


@settings(max_examples=60, deadline=None)
@given(gained(), st.integers(0, 50))
def test_regret_of_hedge_is_within_the_bound_whatever_the_gains(gained: np.ndarray, longer: int) -> None:
    bars, arms = gained.shape
    horizon = bars + longer
    rate = learning_rate(arms, horizon)
    prior = np.full(arms, 1.0 / arms)
    earned = np.sum(hedge_path(gained, prior, rate)[:-1] * gained)
    regret = gained.sum(axis=0).max() - earned
    assert regret <= math.sqrt(horizon * math.log(arms) / 2.0) + 1e-9
    skewed = np.arange(1.0, arms + 1.0) / np.arange(1.0, arms + 1.0).sum()
    earned = np.sum(hedge_path(gained, skewed, rate)[:-1] * gained)
    assert (gained.sum(axis=0) - earned <= regret_bound(skewed, rate, bars) + 1e-9).all()


def test_hedge_comes_near_its_bound_against_the_worst_gains() -> None:
    rng = np.random.default_rng(4)
    bars = 400
    arms = 8
    rate = learning_rate(arms, bars)
    prior = np.full(arms, 1.0 / arms)
    regrets = []
    for _ in range(50):
        gained = rng.integers(0, 2, (bars, arms)).astype(float)
        earned = np.sum(hedge_path(gained, prior, rate)[:-1] * gained)
        regrets.append(gained.sum(axis=0).max() - earned)
    assert 0.4 < np.mean(regrets) / math.sqrt(bars * math.log(arms) / 2.0) < 1.0


def test_hedge_starts_from_the_prior() -> None:
    path = hedge_path(np.array([[1.0, 0.0]]), np.array([0.7, 0.3]), 0.5)
    np.testing.assert_allclose(path[0], [0.7, 0.3])
    assert path[1, 0] / path[1, 1] == pytest.approx(7.0 / 3.0 * math.exp(0.5))


def test_gains_use_no_later_bar_and_keep_the_relative_size_of_the_arms() -> None:
    returns = np.random.default_rng(2).normal(0.0, 0.01, (80, 2)) * [1.0, 3.0]
    mapped = gains(returns, 3.0)
    assert (mapped[:WARM_UP] == 0.5).all()
    changed = returns.copy()
    changed[60:] *= -5.0
    np.testing.assert_array_equal(gains(changed, 3.0)[:60], mapped[:60])
    np.testing.assert_allclose(gains(10.0 * returns, 3.0), mapped)
    deviations = np.abs(mapped[WARM_UP:] - 0.5).mean(axis=0)
    assert 2.0 < deviations[1] / deviations[0] < 4.0


def test_gains_of_returns_that_are_zero_so_far_are_neutral_and_a_crash_is_clipped() -> None:
    returns = np.zeros((WARM_UP + 3, 2))
    returns[-2, 0] = 0.01
    returns[-1, 1] = -5.0
    np.testing.assert_array_equal(gains(returns, 3.0)[-2:], [[0.5, 0.5], [0.5, 0.0]])


def test_gains_refuse_a_return_that_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="not finite"):
        gains(np.full((3, 2), np.nan), 3.0)
