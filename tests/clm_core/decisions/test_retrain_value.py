"""Expected gain and cost of a retrain, as properties and known answers."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.decisions.retrain_value import (
    LEVEL,
    OUTDATES,
    correlation,
    edges_now,
    expected_improvement,
    required_growth,
    resolved_variance,
    retrain_value,
)
from clm_core.domain.evaluations import Check, Decision, TrialLuck, Verdict
from clm_core.domain.retrain_values import EarnedSpan, RetrainEvidence, RetrainValue, ServingVersion

DEVIATION = 0.01
HALF_LIFE = 90.0


def record(*means: float, days: int = 500, since: float = 30.0, fold: float = 90.0) -> tuple[EarnedSpan, ...]:
    """A record by new versions every `fold` days that ends some days ago; the means share the days."""
    return tuple(
        EarnedSpan(
            days_ago=since + days - day - 0.5,
            days=1.0,
            age_days=(day + 0.5) % fold,
            growth=means[day * len(means) // days],
        )
        for day in range(days)
    )


def production(mean: float, days: int, age: float, serves: bool = True) -> tuple[EarnedSpan, ...]:
    """Returns of the last days by a version that was some days old before."""
    return tuple(EarnedSpan(days - day - 0.5, 1.0, age + day + 0.5, mean, serves) for day in range(days))


def evidence_of(earned: tuple[EarnedSpan, ...], **changes: Any) -> RetrainEvidence:
    evidence = RetrainEvidence(
        earned=earned,
        record_growth=0.5,
        required_growth=0.0,
        deviation=DEVIATION,
        days_since_training=30.0,
        unseen_days=30.0,
        serving=ServingVersion("v1", age_days=30.0, exposure=0.2),
        drift_score=None,
        retrains=10,
        promoted=3,
        trials=40.0,
        trials_after=41.0,
        hours=0.5,
        side_bps=5.0,
    )
    return replace(evidence, **changes)


def value(evidence: RetrainEvidence, **prices: float) -> RetrainValue:
    terms = {"half_life_days": HALF_LIFE, "price_per_hour": 1.0, "capital": 100_000.0}
    return retrain_value(evidence, **terms | prices)


spans = st.builds(
    EarnedSpan,
    days_ago=st.floats(0, 800),
    days=st.floats(0.01, 7),
    age_days=st.floats(0, 800),
    growth=st.floats(-0.1, 0.1),
    serves=st.booleans(),
)
evidence = st.builds(
    RetrainEvidence,
    earned=st.lists(spans, max_size=8).map(tuple),
    record_growth=st.floats(-1, 3),
    required_growth=st.floats(-1, 3),
    deviation=st.floats(0.001, 0.1),
    days_since_training=st.floats(0, 400),
    unseen_days=st.floats(0, 400),
    serving=st.none()
    | st.builds(ServingVersion, version=st.just("v1"), age_days=st.floats(0, 400), exposure=st.floats(0, 1)),
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
def test_a_higher_price_of_anything_never_makes_a_retrain_pay(inputs: RetrainEvidence, factor: float) -> None:
    before = value(inputs)
    for dearer in (
        value(inputs, price_per_hour=factor),
        value(replace(inputs, hours=inputs.hours * factor)),
        value(replace(inputs, side_bps=inputs.side_bps * factor)),
        value(replace(inputs, trials_after=inputs.trials_after * factor)),
    ):
        assert dearer.cost_bps >= before.cost_bps - 1e-9
        assert dearer.gain_bps == before.gain_bps
        assert before.pays or not dearer.pays


@given(evidence)
def test_gain_and_costs_are_finite_and_never_negative(inputs: RetrainEvidence) -> None:
    weighed = value(inputs)
    figures = (weighed.improvement_bps, weighed.compute_bps, weighed.turnover_bps, weighed.trials_bps)
    assert all(math.isfinite(each) and each >= 0.0 for each in figures)
    assert 0.0 <= weighed.probability < 1.0


@given(st.lists(spans, min_size=1, max_size=8), st.integers(0, 7), st.floats(0.0, 0.1))
def test_under_each_hypothesis_the_edge_falls_with_every_loss_of_a_record(
    earned: list[EarnedSpan], place: int, loss: float
) -> None:
    recorded = [replace(each, serves=False) for each in earned]
    worse = [*recorded]
    worse[place % len(worse)] = replace(
        worse[place % len(worse)], growth=worse[place % len(worse)].growth - loss
    )
    before = edges_now(recorded, DEVIATION, HALF_LIFE)
    after = edges_now(worse, DEVIATION, HALF_LIFE)
    for old, new in zip(before, after, strict=True):
        assert new.mean <= old.mean + 1e-12
        assert new.own == 0.0
        assert new.variance == pytest.approx(old.variance)


def test_the_edges_are_those_of_a_gaussian_process_conditional_on_the_returns() -> None:
    """Conditional means, variance and likelihood with the covariance matrices written out."""
    rng = np.random.default_rng(5)
    earned = [
        EarnedSpan(ago, days, age, growth, serves)
        for ago, days, age, growth, serves in zip(
            [40.0, 31.5, 20.0, 20.0, 3.0],
            [1.0, 5.0, 1.0, 2.0, 4.0],
            [0.0, 12.0, 60.0, 5.0, 77.0],
            rng.normal(0.001, 0.01, 5).tolist(),
            [False, False, True, False, True],
            strict=True,
        )
    ]
    ago = np.array([each.days_ago for each in earned] + [0.0])
    wandering = DEVIATION**2 / 365.0 * 2.0 ** (-np.abs(ago[:, None] - ago[None, :]) / HALF_LIFE)
    prior = LEVEL * DEVIATION**2 / 365.0 + (1.0 - LEVEL) * wandering
    growth = np.array([each.growth for each in earned])
    lengths = np.array([each.days for each in earned])
    share = np.array([2.0 ** (-each.age_days / HALF_LIFE) for each in earned])
    serves = np.array([each.serves for each in earned])
    scale = lengths.sum() / (lengths @ share)
    outdated = (scale * share, scale * np.sqrt(1.0 - share**2) * serves)
    logs = []
    edges = edges_now(earned, DEVIATION, HALF_LIFE)
    for edge, (common, own) in zip(edges, ((np.ones(5), np.zeros(5)), outdated), strict=True):
        seen = prior[:-1, :-1] * np.outer(common, common) + wandering[:-1, :-1] * np.outer(own, own)
        seen += np.diag(DEVIATION**2 / lengths)
        cross = common * prior[-1, :-1]
        assert edge.mean == pytest.approx(cross @ np.linalg.solve(seen, growth), rel=1e-9)
        assert edge.variance == pytest.approx(prior[-1, -1] - cross @ np.linalg.solve(seen, cross), rel=1e-9)
        assert edge.own == pytest.approx((own * wandering[-1, :-1]) @ np.linalg.solve(seen, growth), rel=1e-9)
        logs.append(-(np.linalg.slogdet(seen)[1] + growth @ np.linalg.solve(seen, growth)) / 2.0)
    odds = OUTDATES / (1.0 - OUTDATES) * math.exp(logs[1] - logs[0])
    assert edges[1].probability == pytest.approx(odds / (1.0 + odds))
    assert edges[1].new_share == pytest.approx(scale)


def test_losses_of_the_old_version_alone_raise_the_gain_and_losses_of_new_versions_lower_it() -> None:
    """Two months after a year of gains: the old version loses, and new ones beside it gain or lose."""
    gains = record(0.002, since=60.0)
    gaining = gains + production(0.002, days=60, age=60.0)
    losing = gains + production(-0.002, days=60, age=60.0)
    beside = {by: tuple(EarnedSpan(day + 0.5, 1.0, 7.0, by) for day in range(60)) for by in (0.002, -0.002)}
    serving = ServingVersion("v1", age_days=120.0, exposure=0.2)

    def gain(earned: tuple[EarnedSpan, ...]) -> float:
        return value(evidence_of(earned, days_since_training=60.0, serving=serving)).improvement_bps

    assert gain(losing + beside[0.002]) > gain(losing) > gain(losing + beside[-0.002])
    assert gain(losing) > gain(gaining)
    assert gain(gaining + beside[0.002]) > gain(gaining + beside[-0.002])


def test_a_gain_without_a_production_version_falls_with_losses_of_all_versions() -> None:
    alone = {"serving": None}
    assert value(evidence_of(record(0.002), **alone)).improvement_bps > 0.0
    assert (
        value(evidence_of(record(0.002, -0.002), **alone)).improvement_bps
        < value(evidence_of(record(0.002), **alone)).improvement_bps / 2
    )


def test_a_record_far_below_zero_has_no_chance_of_a_promotion() -> None:
    """Sixty days cannot lift a record of 500 days with a Sharpe ratio of -2 above zero."""
    losing = record(-0.001)
    sunk = evidence_of(losing, serving=None, record_growth=-0.5, unseen_days=60.0)
    assert value(sunk).probability < 1e-4
    assert not value(sunk).pays
    assert value(replace(sunk, record_growth=0.5)).probability == pytest.approx(4 / 12)


def test_a_year_of_losses_is_not_forgotten_within_half_a_year() -> None:
    """An edge around 0 alone would have lost three quarters of what the record says after two half-lives."""
    losing = record(-0.001, days=455, since=182.0)
    [edge, _] = edges_now(losing, DEVIATION, HALF_LIFE)
    [at_end, _] = edges_now(record(-0.001, days=455, since=0.0), DEVIATION, HALF_LIFE)
    assert edge.mean < at_end.mean / 2 < 0.0


@pytest.mark.parametrize(("growth", "passes"), [(0.3, True), (0.2, False)])
def test_a_record_known_to_the_day_passes_the_gate_or_does_not(growth: float, passes: bool) -> None:
    """The days since the training of the newest version are known, and 0.25 is required."""
    known = evidence_of(
        record(0.001), serving=None, record_growth=growth, required_growth=0.25, unseen_days=0.0
    )
    assert value(known).probability == (pytest.approx(4 / 12) if passes else 0.0)
    assert value(known).pays is passes
    [alike, outdated] = edges_now(known.earned, DEVIATION, HALF_LIFE)
    mean = alike.probability * alike.mean + outdated.probability * outdated.new_share * outdated.mean
    assert value(known).improvement_bps == pytest.approx(mean * 1e4)


@pytest.mark.parametrize(
    ("checks", "luck", "sharpe"),
    [
        ({"sharpe_ratio": 1.0}, None, 1.0),
        ({}, None, 0.0),
        ({"sharpe_ratio": 1.0, "deflated_sharpe_ratio": 0.95}, 0.2, 0.2 + 1.6448536 / math.sqrt(2.0)),
        ({"sharpe_ratio": 2.0, "deflated_sharpe_ratio": 0.95}, 0.2, 2.0),
        ({"sharpe_ratio": 1.0, "deflated_sharpe_ratio": 0.95}, math.nan, 1.0),
    ],
    ids=["threshold", "no check", "trial luck", "threshold above the luck", "unknown luck"],
)
def test_the_required_growth_is_that_of_the_lowest_sharpe_ratio_that_passes(
    checks: dict[str, float], luck: float | None, sharpe: float
) -> None:
    verdict = Verdict(
        decision=Decision.FAIL,
        score=0.0,
        checks=tuple(
            Check(name=name, value=0.0, limit=limit, comparison=">=", passed=False, margin=-limit)
            for name, limit in checks.items()
        ),
        reasons=(),
        luck=None
        if luck is None
        else TrialLuck(
            trials=1, effective_trials=1.0, deviation=1.0, sharpe_ratio=luck, bars_per_year=8760.0
        ),
    )
    growth = required_growth(verdict, DEVIATION, 730.0)
    assert growth == pytest.approx(730.0 * (sharpe * DEVIATION / math.sqrt(365.0) - DEVIATION**2 / 2.0))


def test_a_version_trained_a_moment_ago_is_worth_no_other_training() -> None:
    fresh = evidence_of(record(0.002), days_since_training=0.0, unseen_days=0.0)
    weighed = value(replace(fresh, serving=ServingVersion("v1", age_days=0.0, exposure=0.2)))
    assert weighed.gain_bps == 0.0
    assert not weighed.pays


def test_age_and_drift_of_production_raise_the_gain() -> None:
    evidence = evidence_of(record(0.002))
    before = value(evidence).gain_bps
    assert (
        value(replace(evidence, serving=ServingVersion("v1", age_days=90.0, exposure=0.2))).gain_bps > before
    )
    assert value(replace(evidence, drift_score=3.0)).gain_bps > before


def test_returns_that_fall_with_the_age_of_the_versions_are_evidence_that_versions_outdate() -> None:
    ages = [correlation(each.age_days, HALF_LIFE) for each in record(0.0)]
    falling = [replace(each, growth=0.004 * share) for each, share in zip(record(0.0), ages, strict=True)]
    assert edges_now(falling, DEVIATION, HALF_LIFE)[1].probability > OUTDATES
    assert edges_now(record(0.004), DEVIATION, HALF_LIFE)[1].probability < OUTDATES
    assert edges_now((), DEVIATION, HALF_LIFE)[1].probability == pytest.approx(OUTDATES)


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


def test_measuring_a_normal_variable_resolves_the_fall_of_its_variance() -> None:
    assert resolved_variance(2.0, 3.0, 6.0) == pytest.approx(2.0 - 1.0 / (1.0 / 2.0 + 6.0 / 3.0))


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
