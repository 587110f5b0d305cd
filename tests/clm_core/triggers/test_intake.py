"""Requests to the intake, answered and recorded on a real ledger."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from clm_core.domain.actors import Actor
from clm_core.domain.errors import InvalidTrainingParams, NotEnoughBars, UnknownSeries
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.kinds import model_id
from clm_core.domain.trigger_policy import TriggerPolicy
from clm_core.domain.triggers import Answer, Reply, TriggerRequest
from clm_core.domain.vocabulary import JobStatus, ModelType, Role, TriggerReason
from clm_core.services import Services
from clm_core.triggers import intake

ADA = Actor(name="ada", role=Role.OPERATOR)


def a_request(
    reason: TriggerReason = TriggerReason.MANUAL, key: str | None = None, **changes: Any
) -> TriggerRequest:
    training = {"model_type": ModelType.LIGHTGBM, "symbol": "BTCUSD", "requested_by": "bob"}
    request = RetrainRequest.model_validate(training | {"trigger_reason": reason} | changes)
    return TriggerRequest(training=request, actor=ADA, source="tests", key=key)


def later(services: Services, **by: float) -> Services:
    return replace(services, clock=lambda: services.clock() + timedelta(**by))


def governed(services: Services, **policy: Any) -> Services:
    settings = services.settings.model_copy(update={"triggers": TriggerPolicy.model_validate(policy)})
    return replace(services, settings=settings)


def end_all_jobs(services: Services) -> None:
    for job in services.ledger.jobs(status=JobStatus.PENDING):
        lease = services.ledger.start_job(job.id, "tests", services.clock(), timedelta(minutes=1))
        services.ledger.complete_job(lease, services.clock())


def test_an_accepted_request_has_a_pending_job(clm: Services) -> None:
    answer = intake.submit(clm, a_request())
    assert answer.reply is Reply.ACCEPTED
    [job] = clm.ledger.jobs()
    assert (job.id, job.status, job.model_id, job.requested_by) == (
        answer.job_id,
        JobStatus.PENDING,
        "lightgbm_btcusd_1h",
        "bob",
    )


def test_a_cooldown_does_not_grow_by_the_step_when_the_clock_is_put_back(clm: Services) -> None:
    strict = governed(clm, cooldown_hours=24)
    drift = a_request(TriggerReason.DRIFT_DETECTED)
    assert intake.submit(later(strict, days=10), drift).reply is Reply.ACCEPTED
    end_all_jobs(clm)
    assert intake.submit(strict, drift).reply is Reply.ACCEPTED
    end_all_jobs(clm)
    assert intake.submit(later(strict, hours=23), drift).reply is Reply.REJECTED


def test_every_request_is_recorded_with_its_answer(clm: Services) -> None:
    answers = [
        intake.submit(clm, a_request()),
        intake.submit(clm, a_request()),
        intake.submit(clm, a_request(TriggerReason.PERFORMANCE_DEGRADED)),
    ]
    assert [answer.reply for answer in answers] == [Reply.ACCEPTED, Reply.COALESCED, Reply.REJECTED]
    assert clm.ledger.triggers.answers() == answers[::-1]
    assert clm.ledger.triggers.answers(reply=Reply.REJECTED) == [answers[2]]
    assert clm.ledger.triggers.answers(before=answers[2].number, limit=1) == [answers[1]]
    assert clm.ledger.triggers.answers(model_id=model_id(ModelType.XGBOOST, "BTCUSD", "1h")) == []
    assert answers[1].job_id == answers[0].job_id


def test_32_requests_at_once_make_one_job(clm: Services) -> None:
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: intake.submit(clm, a_request()), range(32)))
    assert Counter(answer.reply for answer in answers) == {Reply.ACCEPTED: 1, Reply.COALESCED: 31}
    assert len({answer.job_id for answer in answers}) == 1
    assert len(clm.ledger.jobs()) == 1


def test_requests_for_different_models_at_once_stay_within_the_budget_of_all(clm: Services) -> None:
    strict = governed(clm, daily_budget=3)
    markets = [
        {"model_type": model_type, "symbol": symbol}
        for model_type in (ModelType.XGBOOST, ModelType.LIGHTGBM)
        for symbol in ("BTCUSD", "EURUSD")
    ]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda market: intake.submit(strict, a_request(**market)), markets))
    assert Counter(answer.reply for answer in answers) == {Reply.ACCEPTED: 3, Reply.REJECTED: 1}


def test_a_second_job_waits_for_the_running_job_and_a_third_request_is_coalesced(clm: Services) -> None:
    first = intake.submit(clm, a_request())
    assert first.job_id is not None
    clm.ledger.start_job(first.job_id, "tests", clm.clock(), timedelta(minutes=1))
    second = intake.submit(clm, a_request())
    third = intake.submit(clm, a_request())
    assert (second.reply, second.waits_for) == (Reply.ACCEPTED, first.job_id)
    assert (third.reply, third.job_id) == (Reply.COALESCED, second.job_id)


def test_a_person_who_asks_for_other_parameters_gets_a_job_of_their_own(clm: Services) -> None:
    first = intake.submit(clm, a_request())
    deeper = intake.submit(clm, a_request(training_params={"num_leaves": 9}))
    again = intake.submit(clm, a_request(training_params={"num_leaves": 9}))
    drift = intake.submit(clm, a_request(TriggerReason.DRIFT_DETECTED))
    assert (deeper.reply, deeper.waits_for) == (Reply.ACCEPTED, first.job_id)
    assert (again.reply, again.job_id) == (Reply.COALESCED, deeper.job_id)
    assert (drift.reply, drift.job_id) == (Reply.COALESCED, first.job_id)
    assert deeper.job_id is not None
    assert clm.ledger.job(deeper.job_id).training_params["num_leaves"] == 9
    # one after the other
    assert [job.id for job in clm.ledger.triggers.startable(clm.clock())] == [first.job_id]
    clm.ledger.cancel_job(first.job_id, ADA, clm.clock())
    assert [job.id for job in clm.ledger.triggers.startable(clm.clock())] == [deeper.job_id]


def test_an_accepted_request_can_replace_the_pending_jobs(clm: Services) -> None:
    first = intake.submit(clm, a_request())
    other = a_request(training_params={"num_leaves": 9}).model_copy(update={"replace_pending": True})
    refused = intake.submit(governed(clm, manual={"daily_budget_per_model": 1}), other)
    assert refused.reply is Reply.REJECTED
    assert [job.id for job in clm.ledger.jobs(status=JobStatus.PENDING)] == [first.job_id]
    replaced = intake.submit(clm, other)
    assert (replaced.reply, replaced.waits_for) == (Reply.ACCEPTED, None)
    assert [job.id for job in clm.ledger.jobs(status=JobStatus.PENDING)] == [replaced.job_id]
    assert first.job_id is not None
    job = clm.ledger.job(first.job_id)
    assert (job.status, job.cancelled_by, job.failure_cause) == (
        JobStatus.FAILED,
        "ada",
        "cancelled by ada",
    )


def test_a_run_takes_over_a_pending_job_without_a_run(clm: Services) -> None:
    request = a_request()
    first = intake.submit(clm, request)
    job = intake.submit_and_claim(clm, request.training, "terminal", uuid4())
    assert isinstance(job, TrainingJob)
    assert job.id == first.job_id
    # reserved now
    other = intake.submit_and_claim(clm, request.training, "terminal", uuid4())
    assert isinstance(other, Answer)
    assert clm.ledger.triggers.startable(clm.clock()) == []


def test_a_run_with_other_parameters_overtakes_pending_jobs_without_a_run(clm: Services) -> None:
    intake.submit(clm, a_request())
    deeper = a_request(training_params={"num_leaves": 9}).training
    job = intake.submit_and_claim(clm, deeper, "terminal", uuid4())
    assert isinstance(job, TrainingJob)
    assert job.training_params["num_leaves"] == 9


def test_a_cancelled_job_stays_cancelled_and_pages_nobody(clm: Services) -> None:
    answer = intake.submit(clm, a_request())
    assert answer.job_id is not None
    job = clm.ledger.cancel_job(answer.job_id, ADA, clm.clock())
    assert clm.ledger.cancel_job(answer.job_id, ADA, clm.clock()) == job
    assert str(job.id) not in [each.subject for each in clm.alerts.newest()]
    [newest] = clm.ledger.audit_after(clm.ledger.newest_audit_number() - 1, 1)
    assert (newest.action, newest.actor, newest.subject) == ("job_cancelled", "ada", str(job.id))


def test_days_that_cannot_be_trained_are_refused_with_those_that_can(clm: Services) -> None:
    with pytest.raises(NotEnoughBars, match=r"BTCUSD 1h cannot be trained: .* pass --days \d+"):
        intake.submit(clm, a_request(dataset_span_days=5))
    assert clm.ledger.jobs() == []


def test_a_key_is_recognised_after_its_job_has_ended(clm: Services) -> None:
    first = intake.submit(clm, a_request(key="drift of 1 March"))
    end_all_jobs(clm)
    again = intake.submit(later(clm, days=40), a_request(key="drift of 1 March"))
    assert (again.reply, again.job_id) == (Reply.COALESCED, first.job_id)
    assert len(clm.ledger.jobs()) == 1


def test_the_cooldown_ends(clm: Services) -> None:
    drift = a_request(TriggerReason.DRIFT_DETECTED)
    assert intake.submit(clm, drift).reply is Reply.ACCEPTED
    end_all_jobs(clm)
    refused = intake.submit(later(clm, hours=23), drift)
    assert refused.reply is Reply.REJECTED
    assert refused.sentence.startswith("rejected: cooldown of drift_detected until ")
    assert intake.submit(later(clm, hours=25), drift).reply is Reply.ACCEPTED


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"training_params": {"max_dpeth": 5}}, InvalidTrainingParams),
        ({"symbol": "DOGEUSD"}, UnknownSeries),
    ],
    ids=["unknown parameter", "unknown market"],
)
def test_an_untrainable_request_is_refused_and_not_recorded(
    changes: dict[str, Any], error: type[Exception], clm: Services
) -> None:
    with pytest.raises(error):
        intake.submit(clm, a_request(**changes))
    assert clm.ledger.triggers.answers() == []


def test_a_model_is_the_same_however_its_market_is_spelt(clm: Services) -> None:
    first = intake.submit(clm, a_request())
    assert intake.submit(clm, a_request(symbol="btcusd")).job_id == first.job_id


def test_an_answer_and_its_job_are_recorded_together_or_not_at_all(
    clm: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("clm_core.ledger.triggers.record", broken)
    with pytest.raises(OSError, match="disk full"):
        intake.submit(clm, a_request())
    assert clm.ledger.jobs() == []
    assert clm.ledger.triggers.answers() == []
