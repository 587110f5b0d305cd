"""Rules of a shadow: when a version under shadow testing is promoted, retired or expires."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clm_core.decisions.allocation_rules import AllocationRules

Switch = Literal["auto", "approval", "off"]
"""`auto`: the pass promotes; `approval`: the pass asks a person, whose silence refuses; `off`: people alone
promote, the default of a policy without evidence."""


class LifecycleRules(BaseModel):
    """Levels `lifecycle` of the policy document."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    promotion: Switch = "auto"
    """Promotion of another recipe than the champion's, and of the first version."""
    refresh: Switch = "auto"
    """Promotion of a refresh of the champion's recipe after a verdict of PASS."""
    confirm_days: float = Field(default=60.0, gt=0, le=3650)
    """Days of the shadow before the confirmation of a walk-forward where no version serves; days between two
    looks at the walk-forward where a version serves."""
    confirm_trades: int = Field(default=100, ge=1)
    """Closed trades of the shadow before the confirmation, if reached before `confirm_days`."""
    refute_chance: float = Field(default=0.05, gt=0, lt=0.5)
    """Probability of refuting a version as good as the walk-forward promised."""
    yearly_error: float = Field(default=0.05, gt=0, lt=0.5)
    """Probability of a false replacement: within a calendar year (UTC) any of the recipes shadowed for a
    model replaces a champion without being better."""
    max_days: float = Field(default=180.0, gt=0, le=3650)
    """Days until an undecided shadow expires."""
    approval_days: float = Field(default=7.0, gt=0, le=3650)
    """Days from the first decision to promote until a promotion that nobody approved is refused, where
    `promotion` or `refresh` is `approval`."""
    human_hold_days: float = Field(default=7.0, ge=0, le=3650)
    """Days during which the pass promotes nothing after a person's promotion, rollback or confirmation."""
    allocation: AllocationRules = AllocationRules()
    """Division of the capital between the production version and candidates, where a person started one."""

    @model_validator(mode="after")
    def _expires_after_confirming(self) -> Self:
        if self.max_days < self.confirm_days:
            raise ValueError(
                f"max_days = {self.max_days:g} is below confirm_days = {self.confirm_days:g}: every shadow "
                "would expire before it confirms"
            )
        return self

    @property
    def looks(self) -> int:
        """Number of looks at the walk-forward within `max_days` where a version serves."""
        return int(self.max_days / self.confirm_days)
