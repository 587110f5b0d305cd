import numpy as np
import pytest

from benchmarks import allocation


def test_the_sampler_has_the_mean_regret_of_lattimore_and_szepesvari() -> None:
    regrets = allocation.thompson_regrets(1000, 2000, (0.2, 0.0), np.random.default_rng(1))
    error = regrets.std(ddof=1) / np.sqrt(len(regrets))
    assert abs(regrets.mean() - 29.9) < 4 * error
    assert error < 1.5


def test_thompson_weights_follow_a_swap_of_the_arms_at_a_discount_a_bar() -> None:
    weights = allocation.swapped_weights(40, 250, 0.99, np.random.default_rng(1))
    assert weights.mean() >= 0.7
    slow = allocation.swapped_weights(40, 250, 0.98 ** (1 / 24), np.random.default_rng(1))
    assert slow.mean() < 0.3


def test_a_difference_of_one_sharpe_ratio_moves_the_weights_little() -> None:
    assert allocation.window_weight(1.0) == pytest.approx(0.57, abs=0.005)
    weights = allocation.thompson_weights(100, 1.0, 90, np.random.default_rng(1))
    assert 0.45 < weights.mean() < 0.7
