"""Which requests to retrain are granted: a pure function of the request, the past and the rules."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.triggers import History, Observation, Reply, TriggerDecision, TriggerRequest
from clm_core.domain.vocabulary import TriggerReason


class ReasonRules(BaseModel):
    """What differs for one reason."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cooldown_hours: float | None = Field(default=None, ge=0, le=8760)
    """None: as for the others."""
    daily_budget_per_model: int | None = Field(default=None, ge=0)
    """A budget of its own, apart from the one the other reasons share; None: it shares theirs."""


class PeriodicRules(ReasonRules):
    cooldown_hours: float | None = Field(default=12, ge=0, le=8760)
    """Less than a day: a daily schedule must not meet the cooldown of yesterday's run."""


class ManualRules(ReasonRules):
    cooldown_hours: float | None = Field(default=0, ge=0, le=8760)
    daily_budget_per_model: int | None = Field(default=100, ge=0)


class TriggerPolicy(BaseModel):
    """When a retrain is granted; `[triggers]` in the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_sharpe_ratio: float = 0.5
    """Annualised; performance has degraded below it."""
    min_new_samples: int = Field(default=100, ge=1)
    """Bars since the training that make another one worthwhile."""
    max_age_days: float = Field(default=30.0, gt=0)
    """A model is stale when it was trained longer ago."""
    cooldown_hours: float = Field(default=24.0, ge=0, le=8760)
    """After an accepted request, further ones of the same model and reason are rejected for so long."""
    daily_budget_per_model: int = Field(default=6, ge=0)
    """Requests accepted for a model in any 24 hours; reasons with a budget of their own do not count."""
    daily_budget: int = Field(default=500, ge=0)
    """Requests accepted in any 24 hours in all, whatever the model and the reason."""
    drift_detected: ReasonRules = ReasonRules()
    performance_degraded: ReasonRules = ReasonRules()
    periodic: PeriodicRules = PeriodicRules()
    manual: ManualRules = ManualRules()
    regime_change: ReasonRules = ReasonRules()
    data_threshold: ReasonRules = ReasonRules()
    strategy_evolution: ReasonRules = ReasonRules()

    def rules(self, reason: TriggerReason) -> ReasonRules:
        rules: ReasonRules = getattr(self, reason.value)
        return rules

    def cooldown(self, reason: TriggerReason) -> timedelta:
        own = self.rules(reason).cooldown_hours
        return timedelta(hours=self.cooldown_hours if own is None else own)


def decide(
    request: TriggerRequest, history: History, policy: TriggerPolicy, now: datetime
) -> TriggerDecision:
    """Accept, coalesce or reject; always with the reason in words.

    What is served by a job already is coalesced with it, before anything else is asked: a repeated message
    is no new request, and a second job that waits would train on the same bars.
    """
    if history.same_key is not None:
        return _coalesced(history.same_key, "it is the same request as an earlier one")
    reason = request.training.trigger_reason
    if refused := next(_lacking(reason, request.observed, policy), None):
        return TriggerDecision(Reply.REJECTED, refused)
    if history.pending is not None:
        return _coalesced(history.pending, "that job waits to be started, and is trained as it was asked for")
    if refused := next(_exhausted(reason, history, policy, now), None):
        return TriggerDecision(Reply.REJECTED, refused)
    if history.running is not None:
        return TriggerDecision(
            Reply.ACCEPTED, f"it starts when job {history.running} of the same model has ended"
        )
    return TriggerDecision(Reply.ACCEPTED, "nothing speaks against it")


def _coalesced(job_id: UUID, because: str) -> TriggerDecision:
    return TriggerDecision(Reply.COALESCED, because, job_id)


def _lacking(reason: TriggerReason, observed: Observation, policy: TriggerPolicy) -> Iterator[str]:
    """What the reason needs and the observation does not show; every comparison refuses a NaN."""
    if reason is TriggerReason.PERFORMANCE_DEGRADED:
        if observed.sharpe_ratio is None:
            yield "performance_degraded needs the Sharpe ratio that was observed, and there is none"
        elif not observed.sharpe_ratio < policy.max_sharpe_ratio:
            yield f"Sharpe ratio {observed.sharpe_ratio:.2f} is not below {policy.max_sharpe_ratio:g}"
    if reason is TriggerReason.DATA_THRESHOLD:
        if observed.new_samples is None:
            yield "data_threshold needs the number of new bars, and there is none"
        elif not observed.new_samples >= policy.min_new_samples:
            yield f"{observed.new_samples} new bars are fewer than {policy.min_new_samples}"
    # a schedule says nothing about the age; who says it means that the model is stale
    stale = observed.age_days is None or observed.age_days > policy.max_age_days
    if reason is TriggerReason.PERIODIC and not stale:
        yield f"the model is {observed.age_days:.1f} days old, stale after {policy.max_age_days:g}"


def _exhausted(
    reason: TriggerReason, history: History, policy: TriggerPolicy, now: datetime
) -> Iterator[str]:
    last, cooldown = history.last_accepted.get(reason), policy.cooldown(reason)
    if last is not None and now < last + cooldown:
        yield (
            f"cooldown of {reason} until {last + cooldown:%Y-%m-%d %H:%M:%S} UTC: "
            f"a request was accepted at {last:%Y-%m-%d %H:%M:%S}"
        )
    spent, budget, of_what = _budget(reason, history, policy)
    if not spent < budget:
        yield f"the budget of {budget} {of_what} in 24 hours is used up for this model"
    if not history.accepted_in_all < policy.daily_budget:
        yield f"the budget of {policy.daily_budget} retrains in 24 hours is used up for all models together"


def _budget(reason: TriggerReason, history: History, policy: TriggerPolicy) -> tuple[int, int, str]:
    own = policy.rules(reason).daily_budget_per_model
    if own is not None:
        return history.accepted.get(reason, 0), own, f"{reason} retrains"
    shared = (each for each in TriggerReason if policy.rules(each).daily_budget_per_model is None)
    return sum(history.accepted.get(each, 0) for each in shared), policy.daily_budget_per_model, "retrains"
