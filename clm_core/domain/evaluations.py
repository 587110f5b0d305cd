"""What is thought of a version: its measured results and the verdict on them."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, computed_field


class EvaluationResult(BaseModel):
    """Out-of-sample walk-forward results of one version, after costs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    id: UUID
    model_id: str
    version: str
    sharpe_ratio: float
    """Annualised."""
    sortino_ratio: float
    calmar_ratio: float
    win_rate: float
    """Share of closed trades with a positive net return, 0..1."""
    profit_factor: float
    """Sum of winning over sum of losing net trade returns."""
    max_drawdown: float
    """Deepest fall of equity below its running peak, as a negative fraction: -0.12 is 12 %."""
    total_pnl: float
    """Net return over the whole period as a fraction of the starting capital."""
    trades: int
    period_start: datetime
    period_end: datetime
    fee_bps: float
    slippage_bps: float
    passed: bool
    promotion_score: float = Field(ge=0, le=100)
    failure_reason: str | None = None
    created_at: datetime


class Decision(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    """A threshold is missed, the model has collapsed, or the evidence is against it."""
    INCONCLUSIVE = "inconclusive"
    """Nothing is against it, but proof is missing: in shadow it gathers more."""


class CheckKind(StrEnum):
    SOUNDNESS = "soundness"
    """Whether it decides anything at all; missed: FAIL."""
    THRESHOLD = "threshold"
    """How good it looks; missed: FAIL."""
    EVIDENCE = "evidence"
    """How sure we are; missed: INCONCLUSIVE, unless the evidence is against it."""


class Check(BaseModel):
    """One condition of a verdict: what was measured, what was asked, by how much it was met."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: CheckKind = CheckKind.THRESHOLD
    value: float
    limit: float
    comparison: str
    """">=" or "<=": how the value must stand to the limit."""
    passed: bool
    margin: float
    """Distance to the limit, positive when the condition holds; NaN when there is no usable value."""

    @property
    def label(self) -> str:
        """The name as people write it: "Sharpe ratio"."""
        return self.name.removesuffix("_bps").replace("_", " ").replace("sharpe", "Sharpe")


class TrialLuck(BaseModel):
    """What the best of all trials would show without any edge, for a record as long as the judged one."""

    model_config = ConfigDict(frozen=True)

    trials: int
    """Counted for the market and timeframe, this one included."""
    effective_trials: float
    """Independent ones that would be as lucky, and no fewer than the policy presumes."""
    deviation: float
    """Standard deviation of the annualised Sharpe ratio that one trial without an edge shows."""
    sharpe_ratio: float
    """Annualised Sharpe ratio expected of the luckiest."""
    bars_per_year: float
    """What the ratios are annualised by."""


class Verdict(BaseModel):
    """A gate's answer with its reasons; never just a yes or a no."""

    model_config = ConfigDict(frozen=True)

    decision: Decision
    score: float
    """Promotion score, 0..100; for ranking only, it decides nothing."""
    checks: tuple[Check, ...] = Field(validation_alias=AliasChoices("checks", "legs"))
    reasons: tuple[str, ...]
    """Why the version did not pass, one sentence a missed condition; empty when it passed."""
    policy: str = ""
    """Name of the policy it was judged by."""
    policy_hash: str = ""
    """SHA-256 of that policy's every level, hexadecimal."""
    luck: TrialLuck | None = None
    """None where the policy asks for no evidence, or there is none."""
    more_bars: float | None = None
    """Bars to come, if they go on as those so far, until the decision; inf: it won't. None unless
    INCONCLUSIVE."""
    seed_sharpes: tuple[float, ...] = ()
    """Annualised Sharpe ratio of the recipe with each seed, ascending; the judged one is among them. Empty
    where there was one."""
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.decision is Decision.PASS

    @computed_field(json_schema_extra={"deprecated": True})  # type: ignore[prop-decorator]
    @property
    def legs(self) -> tuple[Check, ...]:
        """Former name of `checks`, repeated for one release."""
        return self.checks
