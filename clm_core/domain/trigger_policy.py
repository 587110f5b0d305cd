"""Rules for the admission of retrain requests: evidence, cooldowns, budgets and cost."""

from datetime import timedelta
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clm_core.domain.vocabulary import TriggerReason

MAX_DOUBLINGS = 30
"""Doublings of the wait for new bars; beyond, staleness alone asks for a retrain."""


class ReasonRules(BaseModel):
    """Rules for requests of one trigger reason."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cooldown_hours: float | None = Field(default=None, ge=0, le=8760)
    """Cooldown of the reason; None for the cooldown of the policy."""
    daily_budget_per_model: int | None = Field(default=None, ge=0)
    """Separate budget of the reason; None for the budget that the reasons share."""


class PeriodicRules(ReasonRules):
    cooldown_hours: float | None = Field(default=12, ge=0, le=8760)
    """Less than a day: yesterday's run of a daily schedule must not hold up today's."""


class ManualRules(ReasonRules):
    cooldown_hours: float | None = Field(default=0, ge=0, le=8760)
    daily_budget_per_model: int | None = Field(default=100, ge=0)


class RetrainCostRules(BaseModel):
    """Expected gain of a retrain against the cost, for requests of programs; `[triggers.cost_aware]`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool = False
    """True to reject requests of programs whose expected gain does not pay for the cost."""
    capital: float | None = Field(default=None, gt=0)
    """Money that a model trades with; required if enabled."""
    compute_price_per_hour: float | None = Field(default=None, ge=0)
    """Price of an hour of a retrain, in the currency of the capital; required if enabled."""
    hours_per_retrain: float | None = Field(default=None, ge=0, le=1000)
    """Hours of a retrain; None: the median of the model's last completed jobs."""
    half_life_days: float = Field(default=90.0, gt=0, le=36_500)
    """Days in which half of what a training learned is outdated."""

    @model_validator(mode="after")
    def _priced_if_enabled(self) -> Self:
        if self.enabled and (self.capital is None or self.compute_price_per_hour is None):
            raise ValueError("cost_aware needs capital and compute_price_per_hour, in one currency")
        return self


class TriggerPolicy(BaseModel):
    """Rules for the admission of retrain requests; `[triggers]` in the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_sharpe_ratio: float = 0.5
    """Annualised Sharpe ratio below which performance counts as degraded."""
    min_new_samples: int = Field(default=100, ge=1)
    """Minimum number of bars since the training of the production version for a retrain on new data; doubled
    for each retrain since then that was not promoted."""
    max_age_days: float = Field(default=30.0, gt=0)
    """Age above which a model is stale, days."""
    cooldown_hours: float = Field(default=24.0, ge=0, le=8760)
    """Hours after an accepted request in which requests of the same model and reason are rejected."""
    daily_budget_per_model: int = Field(default=6, ge=0)
    """Maximum number of requests accepted per model in 24 hours; a separate budget counts apart."""
    daily_budget: int = Field(default=500, ge=0)
    """Maximum number of requests accepted in 24 hours, over all models and reasons."""
    drift_detected: ReasonRules = ReasonRules()
    performance_degraded: ReasonRules = ReasonRules()
    periodic: PeriodicRules = PeriodicRules()
    manual: ManualRules = ManualRules()
    regime_change: ReasonRules = ReasonRules()
    data_threshold: ReasonRules = ReasonRules()
    strategy_evolution: ReasonRules = ReasonRules()
    cost_aware: RetrainCostRules = RetrainCostRules()

    def rules(self, reason: TriggerReason) -> ReasonRules:
        rules: ReasonRules = getattr(self, reason.value)
        return rules

    def new_samples_needed(self, unpromoted: int) -> int:
        """Bars since the training of the production version for a retrain on new data.

        Args:
            unpromoted: retrains since then that ended and were not promoted, of whatever reason.
        """
        return int(self.min_new_samples * 2 ** min(unpromoted, MAX_DOUBLINGS))

    def cooldown(self, reason: TriggerReason) -> timedelta:
        own = self.rules(reason).cooldown_hours
        return timedelta(hours=self.cooldown_hours if own is None else own)
