"""Estimates with intervals."""

import math

import numpy as np
import pytest

from clm_core.explain.estimates import BoundedEstimate, correlation, mean_of, skill_of, wilson


@pytest.mark.parametrize(
    ("value", "n", "expected"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (81 / 263, 263, (0.2553, 0.3662)),
        (15 / 148, 148, (0.0624, 0.1605)),
        (0.0, 20, (0.0, 0.1611)),
        (1 / 29, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_intervals_are_those_published(value: float, n: int, expected: tuple[float, float]) -> None:
    estimate = wilson(value, n)
    assert (estimate.low, estimate.high) == pytest.approx(expected, abs=5e-5)


def test_less_than_one_observation_tells_nothing() -> None:
    assert wilson(1.0, 0.4) == BoundedEstimate(1.0, 0.0, 1.0)


def test_a_skill_is_the_share_of_the_constants_loss_saved() -> None:
    skill = skill_of(np.array([1.0, 1.0]), np.array([2.0, 2.0]), independent=2)
    assert skill == BoundedEstimate(0.5, 0.5, 0.5)
    assert math.isnan(skill_of(np.zeros(2), np.zeros(2), 2).value)
    assert math.isnan(mean_of(np.empty(0), 0.0).value)


def test_the_interval_of_a_correlation_is_that_of_fisher() -> None:
    """Correlation 0.6 of 30 pairs: atanh(0.6) = 0.6931, +- 1.96 / sqrt(27), back by tanh."""
    one = np.tile([1.0, -1.0], 50)
    other = 0.6 * one + 0.8 * np.repeat([1.0, -1.0], 50)
    estimate = correlation(one, other, independent=30)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.6, 0.306, 0.789), abs=1e-3)
    assert math.isnan(correlation(np.ones(100), other, 30).value)
