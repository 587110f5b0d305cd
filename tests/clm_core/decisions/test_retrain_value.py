"""Expected gain and cost of a retrain, as properties and known answers."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.decisions.retrain_value import (
    correlation,
    difference_of_edges,
    expected_improvement,
    retrain_value,
)
from clm_core.domain.retrain_values import DailyRecord, RetrainEvidence, RetrainValue, ServingVersion

SERVING = ServingVersion("v1", age_days=30.0, returns=None, exposure=0.2)
EVIDENCE = RetrainEvidence(
    judged=DailyRecord(mean=0.001, deviation=0.02, days=900.0),
    days_since_training=7.0,
    serving=SERVING,
    drift_score=None,
    retrains=10,
    promoted=3,
    trials=40.0,
    trials_after=41.0,
    hours=0.5,
    side_bps=5.0,
)


def value(evidence: RetrainEvidence = EVIDENCE, **prices: float) -> RetrainValue:
    terms = {"half_life_days": 90.0, "price_per_hour": 1.0, "capital": 100_000.0}
    return retrain_value(evidence, **terms | prices)


means = st.floats(-0.02, 0.02)
evidence = st.builds(
    RetrainEvidence,
    judged=st.builds(DailyRecord, mean=means, deviation=st.floats(0.001, 0.1), days=st.floats(60, 3000)),
    days_since_training=st.floats(0, 400),
    serving=st.none()
    | st.builds(
        ServingVersion,
        version=st.just("v1"),
        age_days=st.floats(0, 400),
        returns=st.none()
        | st.builds(DailyRecord, mean=means, deviation=st.just(math.nan), days=st.floats(0.1, 400)),
        exposure=st.floats(0, 1),
    ),
    drift_score=st.none() | st.floats(0, 20),
    retrains=st.just(10),
    promoted=st.integers(0, 10),
    trials=st.floats(1, 500),
    trials_after=st.floats(500, 600),
    hours=st.floats(0, 100),
    side_bps=st.floats(0, 50),
)
more = st.floats(1.0, 10.0)


@given(evidence, more)
def test_a_higher_price_of_anything_never_makes_a_retrain_pay(found: RetrainEvidence, factor: float) -> None:
    before = value(found)
    for dearer in (
        value(found, price_per_hour=factor),
        value(replace(found, hours=found.hours * factor)),
        value(replace(found, side_bps=found.side_bps * factor)),
        value(replace(found, trials_after=found.trials_after * factor)),
    ):
        assert dearer.cost_bps >= before.cost_bps - 1e-9
        assert dearer.gain_bps == before.gain_bps
        assert before.pays or not dearer.pays


@given(evidence, st.floats(0.0, 0.02))
def test_the_gain_grows_with_the_judged_record_and_falls_with_the_returns_of_production(
    found: RetrainEvidence, by: float
) -> None:
    before = value(found).gain_bps
    judged = found.judged
    better = replace(found, judged=replace(judged, mean=judged.mean + by))
    assert value(better).gain_bps >= before * (1 - 1e-9) - 1e-9
    serving = found.serving
    if serving is not None and serving.returns is not None:
        earned = replace(serving.returns, mean=serving.returns.mean + by)
        richer = replace(found, serving=replace(serving, returns=earned))
        assert value(richer).gain_bps <= before * (1 + 1e-9) + 1e-9


@given(evidence)
def test_gain_and_costs_are_finite_and_never_negative(found: RetrainEvidence) -> None:
    weighed = value(found)
    figures = (weighed.improvement_bps, weighed.compute_bps, weighed.turnover_bps, weighed.trials_bps)
    assert all(math.isfinite(each) and each >= 0.0 for each in figures)
    assert 0.0 < weighed.probability < 1.0


def test_a_version_trained_a_moment_ago_is_worth_no_other_training() -> None:
    fresh = replace(EVIDENCE, days_since_training=0.0, serving=replace(SERVING, age_days=0.0))
    weighed = value(fresh)
    assert weighed.gain_bps == 0.0
    assert not weighed.pays


def test_age_drift_and_losses_of_production_raise_the_gain() -> None:
    before = value().gain_bps
    assert value(replace(EVIDENCE, serving=replace(SERVING, age_days=90.0))).gain_bps > before
    assert value(replace(EVIDENCE, drift_score=3.0)).gain_bps > before
    losing = replace(SERVING, returns=DailyRecord(-0.002, math.nan, 30.0))
    assert value(replace(EVIDENCE, serving=losing)).gain_bps > before


def test_the_difference_of_the_edges_is_that_of_a_joint_normal_distribution() -> None:
    """Conditional mean and variance by the general formula, with the matrices written out."""
    measured = replace(SERVING, returns=DailyRecord(-0.001, math.nan, 50.0))
    prior = 0.02**2 / 365.0
    shrinkage, kept, shared = 900.0 / 1265.0, correlation(7.0, 90.0), correlation(30.0, 90.0)
    new = kept**2 * (1 - shrinkage) * prior + (1 - kept**2) * prior
    mean = np.array([1.0, shared]) * kept * shrinkage * 0.001
    covariance = np.array([[new, shared * new], [shared * new, shared**2 * new + (1 - shared**2) * prior]])
    gain = covariance[:, 1] / (covariance[1, 1] + 0.02**2 / 50.0)
    mean = mean + gain * (-0.001 - mean[1])
    covariance = covariance - np.outer(gain, covariance[1])
    difference = np.array([1.0, -1.0])
    expected = (difference @ mean, difference @ covariance @ difference)
    found = difference_of_edges(replace(EVIDENCE, serving=measured), 90.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("mean", "variance", "expected"),
    [
        (0.0, 1.0, 1 / math.sqrt(2 * math.pi)),
        (1.0, 0.0, 1.0),
        (-1.0, 0.0, 0.0),
        (1.0, 1.0, 1.0833154705876864),
    ],
)
def test_the_expected_improvement_has_known_values(mean: float, variance: float, expected: float) -> None:
    assert expected_improvement(mean, variance) == pytest.approx(expected, rel=1e-12)


def test_a_value_that_is_not_a_number_does_not_pay() -> None:
    figures: dict[str, Any] = {"compute_bps": 1.0, "turnover_bps": 0.0, "trials_bps": 0.0}
    assert not RetrainValue(improvement_bps=math.nan, probability=0.5, days=7.0, **figures).pays
    assert RetrainValue(improvement_bps=1.0, probability=0.5, days=7.0, **figures).pays


def test_the_sentence_names_the_gain_and_each_cost() -> None:
    weighed = RetrainValue(0.4, 0.5, 7.0, compute_bps=1.0, turnover_bps=2.0, trials_bps=0.5)
    assert weighed.sentence == (
        "the expected gain of 0.20 bps a day over 7.0 days does not pay for 3.50 bps: compute 1.00, "
        "turnover 2.00, trials 0.50 (probability of a promotion 0.50)"
    )
