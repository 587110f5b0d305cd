"""Admission of retrain requests, as tables and as properties of long histories."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.decisions.retraining import decide
from clm_core.domain.actors import Actor
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.trigger_policy import ReasonRules, TriggerPolicy
from clm_core.domain.triggers import (
    History,
    Observation,
    Reply,
    TrainedBefore,
    TriggerDecision,
    TriggerRequest,
)
from clm_core.domain.vocabulary import ModelType, Role, TriggerReason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUNNING, PENDING, EARLIER = (UUID(int=number) for number in (1, 2, 3))
TRAINED = TrainedBefore("v20260228_110000", UUID(int=4))
QUIET = History(running=None, pending=None, last_accepted={}, accepted={}, accepted_in_all=0, same_key=None)
POLICY = TriggerPolicy()


def request_for(reason: TriggerReason, key: str | None = None, **observed: float) -> TriggerRequest:
    training = RetrainRequest(model_type=ModelType.XGBOOST, symbol="BTCUSD", trigger_reason=reason)
    return TriggerRequest(
        training=training,
        actor=Actor(name="ada", role=Role.OPERATOR),
        source="tests",
        key=key,
        observed=Observation.model_validate(observed),
    )


OBSERVED = {
    TriggerReason.PERFORMANCE_DEGRADED: {"sharpe_ratio": 0.4},
    TriggerReason.DATA_THRESHOLD: {"new_samples": 100},
}


@pytest.mark.parametrize("reason", list(TriggerReason), ids=str)
def test_a_request_of_every_reason_is_granted_without_an_objection(reason: TriggerReason) -> None:
    request = request_for(reason, **OBSERVED.get(reason, {}))
    assert decide(request, QUIET, POLICY, NOW) == TriggerDecision(
        Reply.ACCEPTED, "no rule refuses the request"
    )


@pytest.mark.parametrize("reason", list(TriggerReason), ids=str)
def test_every_reason_has_rules_in_the_policy(reason: TriggerReason) -> None:
    assert isinstance(POLICY.rules(reason), ReasonRules)


@pytest.mark.parametrize(
    ("reason", "observed", "reply", "because"),
    [
        ("performance_degraded", {"sharpe_ratio": 0.49}, "accepted", "no rule refuses the request"),
        ("performance_degraded", {"sharpe_ratio": 0.5}, "rejected", "Sharpe ratio 0.50 is not below 0.5"),
        ("performance_degraded", {"sharpe_ratio": -2}, "accepted", "no rule refuses the request"),
        (
            "performance_degraded",
            {},
            "rejected",
            "performance_degraded needs the observed Sharpe ratio, and the request has none",
        ),
        ("data_threshold", {"new_samples": 100}, "accepted", "no rule refuses the request"),
        ("data_threshold", {"new_samples": 99}, "rejected", "99 new bars are fewer than 100"),
        (
            "data_threshold",
            {},
            "rejected",
            "data_threshold needs the number of new bars, and the request has none",
        ),
        ("periodic", {"age_days": 30.5}, "accepted", "no rule refuses the request"),
        ("periodic", {"age_days": 30}, "rejected", "the model is 30.0 days old, stale after 30"),
    ],
)
def test_a_reason_needs_the_observation_behind_the_claim(
    reason: str, observed: dict[str, float], reply: str, because: str
) -> None:
    decision = decide(request_for(TriggerReason(reason), **observed), QUIET, POLICY, NOW)
    assert (decision.reply, decision.because) == (reply, because)


def test_a_sharpe_ratio_that_is_not_a_number_is_refused_twice() -> None:
    with pytest.raises(ValueError, match="finite number"):
        request_for(TriggerReason.PERFORMANCE_DEGRADED, sharpe_ratio=float("nan"))
    request = request_for(TriggerReason.PERFORMANCE_DEGRADED)
    slipped_through = Observation.model_construct(sharpe_ratio=float("nan"))
    request = request.model_copy(update={"observed": slipped_through})
    assert decide(request, QUIET, POLICY, NOW).reply is Reply.REJECTED


DRIFT = TriggerReason.DRIFT_DETECTED
MANUAL = TriggerReason.MANUAL


@pytest.mark.parametrize(
    ("reason", "changes", "reply", "because"),
    [
        (
            DRIFT,
            {"same_key": EARLIER, "pending": PENDING},
            "coalesced",
            "the same request was accepted before",
        ),
        (DRIFT, {"pending": PENDING, "running": RUNNING}, "coalesced", "the job is pending"),
        (
            MANUAL,
            {"pending": PENDING, "same_training": PENDING},
            "coalesced",
            "the job is pending, and trains",
        ),
        (MANUAL, {"pending": PENDING}, "accepted", f"the job starts after job {PENDING} of the same model"),
        (MANUAL, {"pending": PENDING, "overtakes": True}, "accepted", "no rule"),
        (DRIFT, {"trained": TRAINED}, "coalesced", "the job trained v20260228_110000 from the same bars"),
        (
            DRIFT,
            {"running": RUNNING},
            "accepted",
            f"the job starts when job {RUNNING} of the same model has ended",
        ),
        (
            DRIFT,
            {"last_accepted": {DRIFT: NOW - timedelta(hours=23)}},
            "rejected",
            "cooldown of drift_detected until 2026-03-01 13:00:00 UTC",
        ),
        (DRIFT, {"last_accepted": {DRIFT: NOW - timedelta(hours=24)}}, "accepted", "no rule"),
        (DRIFT, {"last_accepted": {MANUAL: NOW}}, "accepted", "no rule"),
        (MANUAL, {"last_accepted": {MANUAL: NOW}}, "accepted", "no rule"),
        (DRIFT, {"accepted": {TriggerReason.PERIODIC: 4, DRIFT: 2}}, "rejected", "the budget of 6 retrains"),
        (DRIFT, {"accepted": {MANUAL: 99, DRIFT: 5}}, "accepted", "no rule"),
        (MANUAL, {"accepted": {DRIFT: 6, MANUAL: 99}}, "accepted", "no rule"),
        (MANUAL, {"accepted": {MANUAL: 100}}, "rejected", "the budget of 100 manual retrains in 24 hours"),
        (
            MANUAL,
            {"accepted_in_all": 500},
            "rejected",
            "the budget of 500 retrains in 24 hours is used up for all",
        ),
    ],
    ids=[
        "same key",
        "one waits",
        "one waits that trains the same",
        "a person asks for other parameters",
        "the run of a person starts while nothing else does",
        "a version of the same training exists",
        "one runs",
        "in the cooldown",
        "at the end of the cooldown",
        "another reason's cooldown",
        "manual has no cooldown",
        "the model's budget is shared by the reasons",
        "manual requests do not use it up",
        "nor are they held up by it",
        "manual has a budget of its own",
        "the budget of all",
    ],
)
def test_the_history_decides(
    reason: TriggerReason, changes: dict[str, Any], reply: str, because: str
) -> None:
    decision = decide(request_for(reason), replace(QUIET, **changes), POLICY, NOW)
    assert decision.reply == reply
    assert decision.because.startswith(because)


def test_a_reason_can_have_a_separate_cooldown_and_budget() -> None:
    rules = {"regime_change": {"cooldown_hours": 1, "daily_budget_per_model": 2}}
    policy = TriggerPolicy.model_validate(rules)
    reason = TriggerReason.REGIME_CHANGE
    late = replace(QUIET, last_accepted={reason: NOW - timedelta(hours=1)}, accepted={reason: 1, DRIFT: 6})
    assert decide(request_for(reason), late, policy, NOW).reply is Reply.ACCEPTED
    assert (
        decide(request_for(reason), replace(late, accepted={reason: 2}), policy, NOW).reply is Reply.REJECTED
    )


@dataclass(frozen=True)
class Step:
    """A request some hours after the request before, and the work done in between."""

    model: int
    reason: TriggerReason
    key: str | None
    hours: float
    worked: bool
    is_new: bool
    """True for parameters of its own."""


steps = st.builds(
    Step,
    model=st.integers(0, 2),
    reason=st.sampled_from(TriggerReason),
    key=st.none() | st.sampled_from("abc"),
    hours=st.floats(0, 9),
    worked=st.booleans(),
    is_new=st.booleans(),
)
policies = st.builds(
    TriggerPolicy,
    cooldown_hours=st.floats(0, 48),
    daily_budget_per_model=st.integers(0, 4),
    daily_budget=st.integers(0, 6),
)


@dataclass(frozen=True)
class Granted:
    at: datetime
    model: int
    reason: TriggerReason
    key: str | None
    job_id: UUID


class World:
    """The knowledge of the ledger, kept in lists."""

    def __init__(self) -> None:
        self.granted: list[Granted] = []
        self.keys: dict[str, UUID] = {}
        self.pending: dict[int, list[tuple[UUID, TriggerReason]]] = {}

    def history(self, model: int, key: str | None, is_new: bool, now: datetime) -> History:
        of_model = [each for each in self.granted if each.model == model]
        recent = [each for each in self.granted if each.at > now - timedelta(hours=24)]
        waiting = self.pending.get(model, [])
        return History(
            running=None,
            pending=waiting[0][0] if waiting else None,
            same_training=waiting[0][0] if waiting and not is_new else None,
            last_accepted={each.reason: each.at for each in of_model},
            accepted=Counter(each.reason for each in recent if each.model == model),
            accepted_in_all=len(recent),
            same_key=self.keys.get(f"{key}") if key else None,
        )

    def play(self, policy: TriggerPolicy, sequence: Sequence[Step]) -> list[TriggerDecision]:
        now = NOW
        answers = []
        for step in sequence:
            now += timedelta(hours=step.hours)
            if step.worked:
                self.pending = {}
            request = request_for(step.reason, step.key, **OBSERVED.get(step.reason, {}))
            decision = decide(request, self.history(step.model, step.key, step.is_new, now), policy, now)
            if decision.reply is Reply.ACCEPTED:
                job_id = uuid.uuid4()
                self.granted.append(Granted(now, step.model, step.reason, step.key, job_id))
                self.pending.setdefault(step.model, []).append((job_id, step.reason))
                if step.key:
                    self.keys[step.key] = job_id
            answers.append(decision)
        return answers


@given(policies, st.lists(steps, max_size=60))
def test_no_sequence_of_requests_breaks_the_rules(policy: TriggerPolicy, sequence: list[Step]) -> None:
    world = World()
    answers = world.play(policy, sequence)
    assert all(answer.because for answer in answers)
    assert all((answer.job_id is not None) == (answer.reply is Reply.COALESCED) for answer in answers)
    for waiting in world.pending.values():
        # a program finds a job pending, a person may add another one
        assert all(reason is MANUAL for _, reason in waiting[1:])
    keys = [each.key for each in world.granted if each.key]
    assert len(keys) == len(set(keys))
    for each in world.granted:
        in_a_day = [other for other in world.granted if each.at - timedelta(hours=24) < other.at <= each.at]
        assert len(in_a_day) <= policy.daily_budget
        own = Counter(other.reason for other in in_a_day if other.model == each.model)
        manual = own.pop(MANUAL, 0)
        assert manual <= (policy.manual.daily_budget_per_model or 0)
        assert own.total() <= policy.daily_budget_per_model
        same = [o.at for o in world.granted if (o.model, o.reason) == (each.model, each.reason)]
        gaps = [later - earlier for earlier, later in pairwise(same)]
        assert all(gap >= policy.cooldown(each.reason) for gap in gaps)


@pytest.mark.parametrize(
    ("unpromoted", "new_samples", "reply"),
    [
        (0, 100, Reply.ACCEPTED),
        (1, 199, Reply.REJECTED),
        (1, 200, Reply.ACCEPTED),
        (3, 799, Reply.REJECTED),
        (3, 800, Reply.ACCEPTED),
        (500, 10**9, Reply.REJECTED),
    ],
)
def test_each_retrain_that_was_not_promoted_doubles_the_new_bars_to_wait_for(
    unpromoted: int, new_samples: int, reply: Reply
) -> None:
    history = replace(QUIET, unpromoted=unpromoted)
    decision = decide(
        request_for(TriggerReason.DATA_THRESHOLD, new_samples=new_samples), history, POLICY, NOW
    )
    assert decision.reply is reply
    if reply is Reply.REJECTED and unpromoted == 3:
        assert decision.because == (
            "799 new bars are fewer than 800: 100, doubled for each of the 3 retrains since the training of "
            "the production version that were not promoted"
        )


def test_a_year_of_hourly_bars_without_a_promotion_asks_for_seven_retrains() -> None:
    granted = 0
    for new_samples in range(8760):
        history = replace(QUIET, unpromoted=granted)
        request = request_for(TriggerReason.DATA_THRESHOLD, new_samples=new_samples)
        granted += decide(request, history, POLICY, NOW).reply is Reply.ACCEPTED
    assert granted == 7


def test_an_alarm_of_the_sequential_test_needs_no_low_ratio() -> None:
    degraded = TriggerReason.PERFORMANCE_DEGRADED
    assert decide(request_for(degraded, sharpe_ratio=0.7), QUIET, POLICY, NOW).reply is Reply.REJECTED
    alarmed = request_for(degraded, sharpe_ratio=0.7, alarm=True)
    assert decide(alarmed, QUIET, POLICY, NOW).reply is Reply.ACCEPTED
