"""Rules of an allocation: how capital is divided between a production version and its candidates."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clm_core.domain.allocations import Observed


class AllocationRules(BaseModel):
    """Levels `lifecycle.allocation` of the policy document."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    observed: Observed = "paper"
    outcome: Literal["returns", "wins"] = "returns"
    """`wins`: a bar counts as won or lost, whatever the size of the return; a return of 0 as neither."""
    start_candidates: float = Field(default=0.30, gt=0, lt=1)
    """Share of all candidates together at the start, 0..1, divided equally; production has the rest."""
    adaptive_after_bars: int = Field(default=50, ge=20)
    """Bars with a return of an arm before the arm's weight follows the returns."""
    discount: float = Field(default=0.98, gt=0, le=1)
    """Weight left of an observation after one day, Thompson sampling alone."""
    clip_deviations: float = Field(default=3.0, gt=0, le=100)
    """Deviations beyond which a return counts no more, Hedge alone."""
    floor: float = Field(default=0.05, ge=0, lt=0.5)
    """Smallest weight of an arm in the allocation."""
    ceiling: float = Field(default=0.95, gt=0.5, le=1)
    """Largest weight of an arm beside others."""
    max_daily_change: float = Field(default=0.10, gt=0, le=1)
    """Largest change of a weight a UTC day, 0.10: ten points."""
    max_drawdown: float = Field(default=0.15, gt=0, lt=1)
    """Fall of an arm below its peak since the start, 0..1, after which the arm is out at once."""
    split_false_alarms: float = Field(default=0.001, gt=0, lt=0.5)
    """Probability of a false alarm a day about a split that differs from the weights."""

    @model_validator(mode="after")
    def _starts_within_the_limits(self) -> Self:
        lowest, highest = sorted((self.start_candidates, 1.0 - self.start_candidates))
        if lowest < self.floor or highest > self.ceiling:
            raise ValueError(
                f"start_candidates = {self.start_candidates:g} gives weights of {lowest:g} and {highest:g}, "
                f"which are not between floor = {self.floor:g} and ceiling = {self.ceiling:g}"
            )
        return self
