import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clm_core.evidence.best_arm import (
    bar_weights,
    beta_posterior,
    gaussian_posteriors,
    probabilities_of_best,
)


def test_beta_arms_have_the_probability_of_the_closed_form() -> None:
    # integer parameters have a finite sum: Miller (2015), "Formulas for Bayesian A/B Testing", equation 6
    chances = probabilities_of_best([beta_posterior(45, 55), beta_posterior(55, 45)])
    assert chances[1] == pytest.approx(0.92039676, abs=5e-9)


def test_two_normal_posteriors_have_the_probability_of_the_normal_difference() -> None:
    chances = probabilities_of_best([stats.norm(0.3, 1.0), stats.norm(0.0, 2.0)])
    assert chances[0] == pytest.approx(stats.norm.cdf(0.3 / np.sqrt(5.0)), abs=1e-10)


def test_two_cauchy_posteriors_have_the_probability_of_the_cauchy_difference() -> None:
    chances = probabilities_of_best([stats.t(1.0, 0.5, 1.0), stats.t(1.0, 0.0, 2.0)])
    assert chances[0] == pytest.approx(stats.cauchy.cdf(0.5 / 3.0), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(0.01, 3), st.floats(1.1, 50)), min_size=1, max_size=5))
def test_probabilities_of_any_arms_sum_to_one(arms: list[tuple[float, float, float]]) -> None:
    chances = probabilities_of_best([stats.t(degrees, mean, scale) for mean, scale, degrees in arms])
    assert chances.sum() == pytest.approx(1.0)
    assert (chances >= 0.0).all()


def test_alike_arms_have_equal_chances_and_a_constant_arm_does_not_break_the_quadrature() -> None:
    rng = np.random.default_rng(1)
    returns = rng.normal(0.0, 0.01, 60)
    whole = np.ones(60)
    alike = probabilities_of_best(gaussian_posteriors([returns] * 3, [whole] * 3))
    np.testing.assert_allclose(alike, 1 / 3, atol=1e-9)
    posteriors = gaussian_posteriors([returns, np.zeros(60)], [whole, whole])
    beside_flat = probabilities_of_best(posteriors)
    assert beside_flat[0] == pytest.approx(1.0 - posteriors[0].cdf(0.0), abs=1e-6)
    flat = probabilities_of_best(gaussian_posteriors([np.zeros(60)] * 2, [whole] * 2))
    np.testing.assert_allclose(flat, 0.5, atol=1e-9)


def test_unweighted_posterior_is_the_t_of_the_textbook() -> None:
    returns = np.array([0.01, -0.02, 0.03, 0.0])
    [posterior] = gaussian_posteriors([returns], [np.ones(4)])
    expected = stats.t(3, returns.mean(), returns.std(ddof=1) / 2.0)
    assert posterior.cdf(0.02) == pytest.approx(expected.cdf(0.02), rel=1e-12)


def test_an_observation_halves_its_weight_with_the_days_of_the_discount() -> None:
    np.testing.assert_allclose(bar_weights(np.array([0.0, 1.0, 2.0, -1.0]), 0.5), [1.0, 0.5, 0.25, 1.0])


@pytest.mark.parametrize(
    "returns", [np.array([0.1, np.nan, 0.2]), np.array([0.1, 0.2])], ids=["not a number", "too few"]
)
def test_a_posterior_refuses_returns_that_say_nothing(returns: np.ndarray) -> None:
    with pytest.raises(ValueError, match="effective observations"):
        gaussian_posteriors([returns], [np.ones(len(returns))])


def test_a_posterior_refuses_counts_that_are_no_counts() -> None:
    with pytest.raises(ValueError, match="not negative"):
        beta_posterior(float("nan"), 1.0)
