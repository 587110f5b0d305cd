"""Curves from scores to probabilities."""

import numpy as np
import pytest

from clm_core.market.bars import Floats
from clm_core.models.trees.calibration import Curve, Prior, base_prior, fit_curve, logistic

EVEN = Prior(0.0, 100.0)


def outcomes(log_odds: Floats, seed: int) -> Floats:
    return (np.random.default_rng(seed).random(len(log_odds)) < logistic(log_odds)).astype(float)


def log_loss(probability: Floats, outcome: Floats) -> float:
    return float(-np.mean(np.log(np.where(outcome > 0.5, probability, 1 - probability))))


@pytest.mark.parametrize("truth", [0.25, 1.0, 2.0])
def test_many_outcomes_find_the_scale_of_the_odds(truth: float) -> None:
    score = np.random.default_rng(0).normal(0, 1, 20_000)
    curve = fit_curve(score, outcomes(truth * score, 1), np.ones(len(score)), EVEN)
    assert curve.slope == pytest.approx(truth, abs=0.06)
    assert curve.intercept == pytest.approx(0, abs=0.05)


def test_calibration_on_older_outcomes_improves_the_log_loss_of_overconfident_odds_on_newer_ones() -> None:
    score = np.random.default_rng(2).normal(0, 1.5, 2_000)
    outcome = outcomes(0.3 * score, 3)
    curve = fit_curve(score[:400], outcome[:400], np.ones(400), EVEN)
    newer = score[400:]
    happened = outcome[400:]
    before = log_loss(logistic(newer), happened)
    assert before > np.log(2)
    assert log_loss(curve.probability(newer), happened) < np.log(2) < before


def test_a_short_noisy_tail_leaves_a_faint_score_nearly_as_it_is() -> None:
    """Half of all tails would turn a faint but true score around, without a prior."""
    slopes = []
    for seed in range(40):
        score = np.random.default_rng(seed).normal(0, 0.1, 2_000)
        outcome = outcomes(score, 100 + seed)
        slopes.append(fit_curve(score, outcome, np.full(2_000, 1 / 24), EVEN).slope)
    assert min(slopes) > 0.7
    assert max(slopes) < 1.3


def test_a_score_that_misleads_is_ignored_and_never_turned_around() -> None:
    score = np.random.default_rng(4).normal(0, 3, 5_000)
    curve = fit_curve(score, outcomes(-score, 5), np.ones(5_000), EVEN)
    assert curve.slope == 0.0
    assert np.ptp(curve.probability(score)) == 0


def test_weights_count_outcomes() -> None:
    score = np.random.default_rng(6).normal(0, 1, 300)
    outcome = outcomes(score, 7)
    thrice = fit_curve(np.repeat(score, 3), np.repeat(outcome, 3), np.full(900, 1 / 3), EVEN)
    assert thrice == pytest.approx(fit_curve(score, outcome, np.ones(300), EVEN))


def test_without_outcomes_the_curve_is_that_of_the_priors() -> None:
    nothing = np.empty(0)
    assert fit_curve(nothing, nothing, nothing, Prior(0.2, 100.0)) == pytest.approx((1.0, 0.2))


def test_a_base_rate_counts_by_its_independent_outcomes() -> None:
    few = base_prior(0.6, 10)
    many = base_prior(0.6, 100_000)
    assert 0 < few.mean < 0.02
    assert many.mean == pytest.approx(np.log(0.6 / 0.4), rel=0.01)
    assert few.precision < many.precision


def test_probabilities_stay_between_0_and_1() -> None:
    assert Curve(1.0, 0.0).probability(np.array([-1e6, 0.0, 1e6])).tolist() == [0.0, 0.5, 1.0]
