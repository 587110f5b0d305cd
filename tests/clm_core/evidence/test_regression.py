"""Excess return, alpha and beta against a baseline, with intervals that hold for dependent returns."""

import math

import numpy as np
import pytest
from scipy.signal import lfilter

from clm_core.evidence.regression import alpha_and_beta, excess_return

YEAR = 8760.0


def drawn(n: int, rng: np.random.Generator, autoregression: float = 0.0) -> np.ndarray:
    return lfilter([1.0], [1.0, -autoregression], rng.normal(0.0, 1e-3, n))


def test_the_coefficients_are_those_of_least_squares():
    rng = np.random.default_rng(1)
    baseline = rng.normal(1e-5, 0.01, 3000)
    returns = 2e-5 + 0.3 * baseline + rng.normal(0.0, 0.004, 3000)
    alpha, beta = alpha_and_beta(returns, baseline, YEAR)
    expected = np.linalg.lstsq(np.column_stack([np.ones(3000), baseline]), returns, rcond=None)[0]
    assert alpha.value == pytest.approx(YEAR * expected[0])
    assert beta.value == pytest.approx(expected[1])


def test_the_errors_are_those_of_white_where_bars_are_independent():
    import statsmodels.api as sm

    rng = np.random.default_rng(2)
    baseline = rng.normal(0.0, 0.01, 20_000)
    returns = 0.5 * baseline + rng.normal(0.0, 0.004, 20_000) * (1 + 40 * np.abs(baseline))
    alpha, beta = alpha_and_beta(returns, baseline, 1.0)
    fitted = sm.OLS(returns, sm.add_constant(baseline)).fit(cov_type="HC0")
    for estimate, error in zip((alpha, beta), fitted.bse, strict=True):
        assert (estimate.high - estimate.low) / (2 * 1.96) == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize("autoregression", [0.0, 0.6], ids=["independent", "autocorrelated"])
def test_the_intervals_cover_the_truth_as_often_as_stated(autoregression):
    rng = np.random.default_rng(3)
    covered = np.zeros(3)
    for _ in range(400):
        baseline = drawn(1500, rng, autoregression)
        returns = 0.4 * baseline + drawn(1500, rng, autoregression)
        alpha, beta = alpha_and_beta(returns, baseline, 1.0)
        excess = excess_return(returns, baseline, 1.0)
        covered += [
            alpha.low <= 0 <= alpha.high,
            beta.low <= 0.4 <= beta.high,
            excess.low <= 0 <= excess.high,
        ]
    assert (covered / 400 >= 0.91).all()


def test_the_excess_return_is_the_mean_difference_of_a_year():
    rng = np.random.default_rng(4)
    baseline = rng.normal(0.0, 0.01, 1000)
    excess = excess_return(baseline + 1e-5, baseline, YEAR)
    assert excess.value == pytest.approx(YEAR * 1e-5)
    assert excess.low == pytest.approx(excess.high)


def test_a_strategy_equal_to_the_baseline_has_no_alpha_and_a_beta_of_one():
    baseline = np.random.default_rng(5).normal(0.0, 0.01, 1000)
    alpha, beta = alpha_and_beta(baseline, baseline, YEAR)
    assert alpha.value == pytest.approx(0.0, abs=1e-12)
    assert beta.value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("returns", "baseline"),
    [
        pytest.param(np.ones(10), np.arange(10.0), id="too few bars"),
        pytest.param(np.full(100, np.nan), np.arange(100.0), id="not finite"),
        pytest.param(np.arange(100.0), np.full(100, 0.1), id="constant baseline"),
    ],
)
def test_bars_that_decide_nothing_give_nan(returns, baseline):
    assert all(math.isnan(estimate.value) for estimate in alpha_and_beta(returns, baseline, YEAR))


def test_series_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="same bars"):
        excess_return(np.zeros(30), np.zeros(31), YEAR)
