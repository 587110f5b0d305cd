"""Admission of retrain requests: a pure function of the request, the history and the policy."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from clm_core.domain.retrain_values import RetrainValue
from clm_core.domain.trigger_policy import TriggerPolicy
from clm_core.domain.triggers import (
    History,
    Observation,
    Reply,
    TrainedBefore,
    TriggerDecision,
    TriggerRequest,
)
from clm_core.domain.vocabulary import TriggerReason


def decide(
    request: TriggerRequest,
    history: History,
    policy: TriggerPolicy,
    now: datetime,
    value: RetrainValue | None = None,
) -> TriggerDecision:
    """Accept, coalesce or reject a request, with the reason in words.

    A request already covered by a job is coalesced before any other rule applies: a repeated message is not a
    new request, and a second job would train the same. Other parameters than those of the pending job make a
    job of a manual request, and not of a program's request.

    Args:
        value: expected gain and cost of the retrain; None: not weighed.
    """
    if history.same_key is not None:
        return _coalesced(history.same_key, "the same request was accepted before")
    reason = request.training.trigger_reason
    if refusal := next(_missing_evidence(reason, request.observed, policy, history.unpromoted), None):
        return TriggerDecision(Reply.REJECTED, refusal)
    if (covered := _covered(request, history)) is not None:
        return covered
    if refusal := next(_exceeded_limits(reason, history, policy, now), None):
        return TriggerDecision(Reply.REJECTED, refusal)
    return _accepted(history) if value is None else _weighed(_accepted(history), value)


def _covered(request: TriggerRequest, history: History) -> TriggerDecision | None:
    """Answer to a request that a pending job serves, or an existing version; None if neither does."""
    if history.same_training is not None:
        return _coalesced(history.same_training, "the job is pending, and trains the same")
    if history.pending is not None and request.training.trigger_reason is not TriggerReason.MANUAL:
        return _coalesced(history.pending, "the job is pending, with the parameters of the earlier request")
    if history.trained is not None and not request.training.again:
        return _trained_before(history.trained)
    return None


def _accepted(history: History) -> TriggerDecision:
    if history.running is not None:
        because = f"the job starts when job {history.running} of the same model has ended"
        return TriggerDecision(Reply.ACCEPTED, because, waits_for=history.running)
    if history.pending is not None and not history.overtakes:
        because = (
            f"the job starts after job {history.pending} of the same model, which is pending with other "
            "parameters"
        )
        return TriggerDecision(Reply.ACCEPTED, because, waits_for=history.pending)
    return TriggerDecision(Reply.ACCEPTED, "no rule refuses the request")


def _weighed(accepted: TriggerDecision, value: RetrainValue) -> TriggerDecision:
    """Rejection of a retrain that does not pay; the acceptance with the expected gain otherwise."""
    if not value.pays:
        return TriggerDecision(Reply.REJECTED, value.sentence)
    return replace(accepted, because=f"{accepted.because}; {value.sentence}")


def _trained_before(trained: TrainedBefore) -> TriggerDecision:
    return _coalesced(
        trained.job_id,
        f"the job trained {trained.version} from the same bars, parameters, seed and code: see `clm show "
        f"{trained.version}`, or ask with --again (`again`) to train once more",
    )


def _coalesced(job_id: UUID, because: str) -> TriggerDecision:
    return TriggerDecision(Reply.COALESCED, because, job_id)


def _missing_evidence(
    reason: TriggerReason, observed: Observation, policy: TriggerPolicy, unpromoted: int
) -> Iterator[str]:
    """Requirements of the reason that the observation does not meet; every comparison refuses a NaN."""
    # an alarm has a declared error rate, which an observed ratio has not
    if reason is TriggerReason.PERFORMANCE_DEGRADED and not observed.alarm:
        if observed.sharpe_ratio is None:
            yield "performance_degraded needs the observed Sharpe ratio, and the request has none"
        elif not observed.sharpe_ratio < policy.max_sharpe_ratio:
            yield f"Sharpe ratio {observed.sharpe_ratio:.2f} is not below {policy.max_sharpe_ratio:g}"
    if reason is TriggerReason.DATA_THRESHOLD:
        if observed.new_samples is None:
            yield "data_threshold needs the number of new bars, and the request has none"
        elif not observed.new_samples >= policy.new_samples_needed(unpromoted):
            yield _too_few(observed.new_samples, policy, unpromoted)
    # a schedule gives no age; a request that gives an age claims a stale model
    stale = observed.age_days is None or observed.age_days > policy.max_age_days
    if reason is TriggerReason.PERIODIC and not stale:
        yield f"the model is {observed.age_days:.1f} days old, stale after {policy.max_age_days:g}"


def _too_few(new_samples: int, policy: TriggerPolicy, unpromoted: int) -> str:
    refusal = f"{new_samples} new bars are fewer than {policy.new_samples_needed(unpromoted)}"
    if not unpromoted:
        return refusal
    return (
        f"{refusal}: {policy.min_new_samples}, doubled for each of the {unpromoted} retrains since the "
        "training of the production version that were not promoted"
    )


def _exceeded_limits(
    reason: TriggerReason, history: History, policy: TriggerPolicy, now: datetime
) -> Iterator[str]:
    last = history.last_accepted.get(reason)
    cooldown = policy.cooldown(reason)
    if last is not None and now < last + cooldown:
        yield (
            f"cooldown of {reason} until {last + cooldown:%Y-%m-%d %H:%M:%S} UTC: "
            f"a request was accepted at {last:%Y-%m-%d %H:%M:%S}"
        )
    spent, budget, budgeted = _budget(reason, history, policy)
    if not spent < budget:
        yield f"the budget of {budget} {budgeted} in 24 hours is used up for this model"
    if not history.accepted_in_all < policy.daily_budget:
        yield f"the budget of {policy.daily_budget} retrains in 24 hours is used up for all models together"


def _budget(reason: TriggerReason, history: History, policy: TriggerPolicy) -> tuple[int, int, str]:
    """Accepted requests, their limit, and the name of the budget."""
    own = policy.rules(reason).daily_budget_per_model
    if own is not None:
        return history.accepted.get(reason, 0), own, f"{reason} retrains"
    shared = (each for each in TriggerReason if policy.rules(each).daily_budget_per_model is None)
    return sum(history.accepted.get(each, 0) for each in shared), policy.daily_budget_per_model, "retrains"
