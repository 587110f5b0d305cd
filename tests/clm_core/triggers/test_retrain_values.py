"""Retrains that cost more than they are expected to gain are rejected where the settings ask for it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from records import a_job, a_version, an_evaluation
from sqlalchemy import Engine, text
from trials import count_trial_of

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.actors import Actor
from clm_core.domain.evaluations import Decision, Verdict
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.standings import EquityPoint, ProductionStanding
from clm_core.domain.trigger_policy import RetrainCostRules, TriggerPolicy
from clm_core.domain.triggers import Answer, Reply, TriggerRequest
from clm_core.domain.vocabulary import ModelType, Role, TriggerReason
from clm_core.retraining import followed_days
from clm_core.retraining.followed_days import FollowedDays
from clm_core.services import Services
from clm_core.triggers import intake
from clm_core.triggers.retrain_values import value_of

LABEL = "v20251204_143022"
VERDICT = Verdict(decision=Decision.FAIL, score=40.0, checks=(), reasons=("too little",))
DEAR = {"enabled": True, "capital": 1000.0, "compute_price_per_hour": 10.0, "hours_per_retrain": 1.0}


@pytest.fixture
def judged(clm: Services) -> Services:
    """Services with one judged version, trained within half an hour a week ago."""
    ledger = clm.ledger
    now = clm.clock() - timedelta(days=7)
    job = a_job(model_type=ModelType.LIGHTGBM, created_at=now)
    ledger.create_job(job)
    lease = ledger.start_job(job.id, "tests", now, timedelta(hours=1))
    version = a_version(job, created_at=now)
    ledger.add_version(version, lease)
    daily = 0.0005 + 0.01 * np.random.default_rng(3).standard_normal(300)
    count_trial_of(ledger, version, lease, daily)
    evaluation = an_evaluation(job.model_id, LABEL, created_at=now)
    ledger.add_evaluation(evaluation, VERDICT, GatePolicy(name="strict"), version.bundle_digest, lease)
    ledger.complete_job(lease, now + timedelta(minutes=30))
    return clm


def weighing(services: Services, **rules: Any) -> Services:
    policy = TriggerPolicy(cost_aware=RetrainCostRules.model_validate(rules))
    return replace(services, settings=services.settings.model_copy(update={"triggers": policy}))


def submit(
    services: Services,
    reason: TriggerReason = TriggerReason.PERIODIC,
    source: str = "deployment/lightgbm-btcusd-1h",
) -> Answer:
    return intake.submit(services, a_request(reason, source))


def a_request(
    reason: TriggerReason = TriggerReason.PERIODIC, source: str = "deployment/lightgbm-btcusd-1h"
) -> TriggerRequest:
    training = RetrainRequest(
        model_type=ModelType.LIGHTGBM, symbol="BTCUSD", trigger_reason=reason, requested_by="tests"
    )
    actor = Actor(name="schedule", role=Role.OPERATOR)
    return TriggerRequest(training=training, actor=actor, source=source)


def test_a_scheduled_retrain_that_does_not_pay_is_rejected_with_the_figures(judged: Services) -> None:
    answer = submit(weighing(judged, **DEAR))
    assert answer.reply is Reply.REJECTED
    assert "bps a day over 7.0 days does not pay for 100.00 bps: compute 100.00" in answer.because
    assert judged.ledger.triggers.answers(reply=Reply.REJECTED) == [answer]


def test_a_scheduled_retrain_that_pays_is_accepted_with_the_figures(judged: Services) -> None:
    answer = submit(weighing(judged, **DEAR | {"hours_per_retrain": 0.0}))
    assert answer.reply is Reply.ACCEPTED
    assert answer.because.startswith("no rule refuses the request; the expected gain of ")
    assert "over 7.0 days pays for 0.00 bps" in answer.because


@pytest.mark.parametrize(
    ("reason", "source"),
    [("manual", "deployment/on-demand"), ("periodic", "terminal"), ("periodic", "api")],
)
def test_a_request_of_a_person_is_never_declined(judged: Services, reason: str, source: str) -> None:
    answer = submit(weighing(judged, **DEAR), TriggerReason(reason), source)
    assert (answer.reply, answer.because) == (Reply.ACCEPTED, "no rule refuses the request")


def test_nothing_is_weighed_unless_enabled(judged: Services) -> None:
    assert RetrainCostRules().enabled is False
    assert submit(judged).because == "no rule refuses the request"


def test_a_model_without_a_judged_version_is_not_weighed(clm: Services) -> None:
    assert submit(weighing(clm, **DEAR)).because == "no rule refuses the request"


def test_duration_probability_and_costs_are_those_of_the_ledger(judged: Services, engine: Engine) -> None:
    """A version in production for five days, with losses, since a promotion of the only version."""
    ledger = judged.ledger
    measuring = weighing(judged, **DEAR | {"hours_per_retrain": None})
    job = a_job(model_type=ModelType.LIGHTGBM, trigger_reason=TriggerReason.PERIODIC)
    before = value_of(measuring, a_request(), job)
    assert before is not None
    assert before.compute_bps == pytest.approx(0.5 * 10.0 / 1000.0 * 1e4)
    assert (before.probability, before.turnover_bps) == (pytest.approx(1 / 3), 0.0)
    with engine.begin() as connection:
        connection.execute(text("UPDATE model_versions SET status = 'production'"))
    serving = value_of(measuring, a_request(), job)
    assert serving is not None
    # a verdict without folds: fully invested, 7 bps a side
    assert serving.turnover_bps == pytest.approx(1 / 3 * 2.0 * 7.0)
    ledger.standings.record(standing(judged, equity=0.9))
    losing = value_of(measuring, a_request(), job)
    ledger.standings.record(standing(judged, equity=1.1))
    gaining = value_of(measuring, a_request(), job)
    assert losing is not None
    assert gaining is not None
    assert losing.improvement_bps > serving.improvement_bps > gaining.improvement_bps


def test_returns_before_a_halt_count_without_a_production_version(judged: Services) -> None:
    """The model was halted: no version serves, and the losses of the last one are known."""
    measuring = weighing(judged, **DEAR)
    job = a_job(model_type=ModelType.LIGHTGBM, trigger_reason=TriggerReason.PERIODIC)
    before = value_of(measuring, a_request(), job)
    judged.ledger.standings.record(standing(judged, equity=0.9))
    after = value_of(measuring, a_request(), job)
    assert before is not None
    assert after is not None
    assert after.improvement_bps < before.improvement_bps


def test_a_version_awaiting_a_decision_leaves_little_to_gain(judged: Services, engine: Engine) -> None:
    """A version a week old would be promoted as it is: a newer one is worth the difference between both."""
    measuring = weighing(judged, **DEAR)
    job = a_job(model_type=ModelType.LIGHTGBM, trigger_reason=TriggerReason.PERIODIC)
    gains = {}
    for status in ("failed", "candidate", "shadow"):
        with engine.begin() as connection:
            connection.execute(text("UPDATE model_versions SET status = :status"), {"status": status})
        value = value_of(measuring, a_request(), job)
        assert value is not None
        assert value.turnover_bps == 0.0
        gains[status] = value.improvement_bps
    assert 0.0 < gains["candidate"] < gains["failed"] / 5
    assert gains["shadow"] == pytest.approx(gains["candidate"], rel=1e-3)


def test_days_followed_after_the_record_decide_whether_a_further_record_passes(
    judged: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week of large gains lifts the record above what the gate requires, a week of losses does not."""
    measuring = weighing(judged, **DEAR)
    job = a_job(model_type=ModelType.LIGHTGBM, trigger_reason=TriggerReason.PERIODIC)
    [newest] = judged.ledger.trials.newest_judged(job.model_id, 1)
    ended = newest.record.first_day + len(newest.record.daily)
    for growth, probability in ((0.1, 1 / 3), (-0.1, 0.0)):
        week = FollowedDays(ended + np.arange(7), np.full(7, growth))
        monkeypatch.setattr(followed_days, "followed_days", lambda services, version, since, week=week: week)
        value = value_of(measuring, a_request(), job)
        assert value is not None
        assert value.probability == pytest.approx(probability)


def test_a_further_trial_on_nearly_the_same_days_costs_next_to_nothing(
    judged: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7 of 307 days are a new look; an independent second trial would raise the trial luck by half."""
    monkeypatch.setattr(GatePolicy, "fewest_trials", 1.0)
    job = a_job(model_type=ModelType.LIGHTGBM, trigger_reason=TriggerReason.PERIODIC)
    value = value_of(weighing(judged, **DEAR), a_request(), job)
    assert value is not None
    assert value.gain_bps > 0.0
    assert value.trials_bps < 0.01 * value.gain_bps


def standing(services: Services, equity: float) -> ProductionStanding:
    """Five days in production that ended with an equity."""
    return ProductionStanding(
        model_id="lightgbm_btcusd_1h",
        version=LABEL,
        since=services.clock() - timedelta(days=5),
        at=services.clock(),
        bars=120,
        trades=3,
        drawdown=0.1,
        hard_stop=0.2,
        equity=(EquityPoint(days=0.0, equity=1.0), EquityPoint(days=5.0, equity=equity)),
        band=(),
        expected=None,
        sentences=(),
    )


def test_prices_are_required_where_costs_are_weighed() -> None:
    with pytest.raises(ValueError, match="cost_aware needs capital and compute_price_per_hour"):
        RetrainCostRules(enabled=True, capital=1000.0)
