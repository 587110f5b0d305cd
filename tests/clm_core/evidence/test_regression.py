"""Excess return, alpha and beta against a baseline, with intervals that hold for dependent returns."""

import math

import numpy as np
import pytest

from clm_core.evidence.regression import alpha_and_beta, excess_return, joint_alpha, simpler_rule

YEAR = 8760.0


def drawn(n: int, rng: np.random.Generator, autoregression: float = 0.0) -> np.ndarray:
    from scipy.signal import lfilter

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


def test_the_alpha_on_several_baselines_is_the_intercept_of_their_regression() -> None:
    """Coefficients and White's errors by the textbook formula, for returns without autocorrelation."""
    rng = np.random.default_rng(0)
    baselines = 0.001 + 0.01 * rng.standard_normal((3, 500))
    baselines[1] = 0.5 * baselines[0] + 0.001 * rng.standard_normal(500)
    returns = 0.0005 + 0.3 * baselines[0] + 0.2 * baselines[2] + 0.01 * rng.standard_normal(500)
    design = np.vstack([np.ones(500), baselines]).T
    coefficients = np.linalg.lstsq(design, returns, rcond=None)[0]
    residuals = returns - design @ coefficients
    inverse = np.linalg.inv(design.T @ design)
    covariance = inverse @ (design.T * residuals**2) @ design @ inverse * 500 / 496
    alpha = joint_alpha(returns, list(baselines), 365.0)
    assert alpha.value == pytest.approx(365.0 * coefficients[0])
    assert alpha.error == pytest.approx(365.0 * math.sqrt(covariance[0, 0]), rel=0.05)
    assert alpha.error >= 365.0 * math.sqrt(covariance[0, 0]) * (1.0 - 1e-9)


def test_a_mixture_of_the_baselines_has_no_alpha() -> None:
    baselines = list(0.001 + 0.01 * np.random.default_rng(1).standard_normal((3, 300)))
    alpha = joint_alpha(0.4 * baselines[0] + 0.1 * baselines[2], baselines, 365.0)
    assert alpha.value == 0.0
    assert alpha.at_least(0.5 + 1e-6) < 0.0


def test_equal_and_constant_baselines_count_once() -> None:
    rng = np.random.default_rng(2)
    baseline = 0.001 + 0.01 * rng.standard_normal(300)
    returns = 0.002 + 0.5 * baseline + 0.01 * rng.standard_normal(300)
    once = joint_alpha(returns, [baseline], 365.0)
    twice = joint_alpha(returns, [baseline, 2.0 * baseline, np.zeros(300)], 365.0)
    assert twice.value == pytest.approx(once.value)
    assert twice.error == pytest.approx(once.error, rel=0.01)
    assert once.value == pytest.approx(alpha_and_beta(returns, baseline, 365.0)[0].value)


def test_returns_without_alpha_are_certain_in_one_case_of_twenty() -> None:
    rng = np.random.default_rng(3)
    streams = 1000
    certain = 0
    for _ in range(streams):
        baselines = list(0.001 + 0.01 * rng.standard_normal((3, 250)))
        returns = 0.3 * baselines[0] + 0.2 * baselines[2] + 0.01 * rng.standard_normal(250)
        certain += joint_alpha(returns, baselines, 365.0).at_least(0.95) >= 0.0
    assert certain / streams == pytest.approx(0.05, abs=3.5 * math.sqrt(0.05 * 0.95 / streams))


def test_an_alpha_that_cannot_be_measured_is_unknown() -> None:
    short = np.linspace(0.0, 1.0, 10)
    assert math.isnan(joint_alpha(short, [short**2], 365.0).value)
    assert math.isnan(joint_alpha(np.append(short, [np.nan] * 20), [np.arange(30.0)], 365.0).value)


def test_the_rule_that_does_as_well_is_the_one_most_like_the_returns() -> None:
    rng = np.random.default_rng(7)
    hold, trend = rng.normal(0.0, 0.01, (2, 1000))
    rules = {"hold": hold, "trend": trend, "flat": np.zeros(1000)}
    follower = trend + rng.normal(0.0, 0.001, 1000)
    assert simpler_rule(follower, rules, 365.25, 0.95) == "trend"
    # nothing certain beyond the holder either, whose lower bound may be the lowest
    assert joint_alpha(follower, [hold], 365.25).at_least(0.95) < 0.0
    assert simpler_rule(hold - trend, rules, 365.25, 0.95) == "hold"
    assert simpler_rule(follower + 0.01, rules, 365.25, 0.95) == ""
