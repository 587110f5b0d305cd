"""Evaluations of versions: measured results, and the gate's verdict."""

import math
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    computed_field,
    field_serializer,
)

from clm_core.domain import measures
from clm_core.domain.terms import EvaluationTerms, cost_sentence
from clm_core.domain.trials import MatchedMarket

Measured = Annotated[
    float,
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}, mode="serialization"),
]
"""A measured value; NaN or infinity (a profit factor without a losing trade) is null in JSON."""


class EvaluationResult(BaseModel):
    """Out-of-sample walk-forward results of a version, after costs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    id: UUID
    model_id: str
    version: str
    sharpe_ratio: Measured
    """Annualised."""
    sortino_ratio: Measured
    calmar_ratio: Measured
    win_rate: Measured
    """Share of closed trades with a positive net return, 0..1."""
    profit_factor: Measured
    """Sum of winning over sum of losing net trade returns."""
    max_drawdown: Measured
    """Deepest fall of equity below the running peak, as a negative fraction: -0.12 is 12 %."""
    total_pnl: Measured
    """Net return over the whole period as a fraction of the starting capital."""
    trades: int
    period_start: datetime
    period_end: datetime
    fee_bps: float
    slippage_bps: float
    terms: EvaluationTerms | None = Field(
        default=None,
        description="Costs, costs of holding, execution, walk-forward plan, calendar and gap rules of the "
        "evaluation; null for an evaluation by release 0.1.0.",
    )
    terms_digest: str | None = Field(
        default=None,
        description="SHA-256 of the terms, hexadecimal: evaluations with the same digest were made under "
        "equal terms.",
    )
    passed: bool
    promotion_score: float = Field(ge=0, le=100)
    failure_reason: str | None = None
    created_at: datetime

    @property
    def costs_in_words(self) -> str:
        """Costs as a clause: "5 bps of fees and 2 bps of slippage on each side"."""
        if self.terms is not None:
            return cost_sentence(self.terms)
        return f"{self.fee_bps:g} bps of fees and {self.slippage_bps:g} bps of slippage on each side"


class Decision(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    """A threshold is missed, the model has collapsed, or the evidence is against the version."""
    INCONCLUSIVE = "inconclusive"
    """No evidence is against the version, but proof is missing: a shadow period gathers more."""


class CheckKind(StrEnum):
    SOUNDNESS = "soundness"
    """The model takes decisions at all; a miss is FAIL."""
    THRESHOLD = "threshold"
    """A measured result; a miss is FAIL."""
    EVIDENCE = "evidence"
    """Statistical confidence; a miss is INCONCLUSIVE, or FAIL if the evidence is against the version."""


class CheckStatus(StrEnum):
    MET = "met"
    MISSED = "missed"
    """The verdict has a reason about the check."""
    CARRIED = "carried"
    """Missed, with another check standing in, see `Check.carried_by`."""
    INFORMATION = "information"
    """Shown without influence on the decision."""


class Check(BaseModel):
    """A condition of a verdict: measured value, limit and margin."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: CheckKind = CheckKind.THRESHOLD
    value: float
    limit: float
    comparison: str
    """">=", "<=" or ">": required relation of the value to the limit."""
    passed: bool
    margin: float
    """Distance to the limit, positive when the condition holds; NaN without a usable value."""
    decides: bool = True
    """False for a check shown for information."""
    carried_by: str = ""
    """Name of the check standing in for the missed check; empty if none does."""
    low: float | None = None
    """Lower end of an interval of 95 % of the value; None where none was computed."""
    high: float | None = None
    """Upper end of the interval."""
    note: str = ""
    """Further facts about the value, formatted."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def label(self) -> str:
        """Name for people: "Sharpe ratio"."""
        return measures.label_of(self.name)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def measured(self) -> str:
        """Value for people, with interval and note: "1.45 (0.20 to 2.70)"."""
        return f"{self.estimate}, {self.note}" if self.note else self.estimate

    @property
    def estimate(self) -> str:
        """Value for people, with interval: "1.45 (0.20 to 2.70)"."""
        text = measures.apart(self.name, self.value, self.limit)
        if self.low is None or self.high is None:
            return text
        return measures.with_interval(self.value, self.low, self.high, measures.format_of(self.name))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def required(self) -> str:
        """Limit for people: "≥ 1.00"; "never" for a limit that no value can meet."""
        if not math.isfinite(self.limit):
            return "never"
        text = measures.format_of(self.name)(self.limit)
        if measures.format_of(self.name) is measures.yes_or_no:
            return text
        return f"{SIGNS[self.comparison]} {text}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> CheckStatus:
        if not self.decides:
            return CheckStatus.INFORMATION
        if self.passed:
            return CheckStatus.MET
        return CheckStatus.CARRIED if self.carried_by else CheckStatus.MISSED

    @property
    def outcome(self) -> str:
        """Status for people: "✗ missed, carried by expectancy of a trade"."""
        match self.status:
            case CheckStatus.CARRIED:
                return f"✗ missed, carried by {measures.label_of(self.carried_by).partition(',')[0]}"
            case CheckStatus.INFORMATION:
                return "for information"
            case CheckStatus.MET:
                return "✓ met"
        return "✗ missed"

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Texts for people, in the order of `CHECK_COLUMNS`."""
        return (self.label, self.measured, self.required, self.outcome)


CHECK_COLUMNS = ("check", "measured", "required", "result")
"""Titles of the cells of a `Check`."""
SIGNS = {">=": "≥", "<=": "≤", ">": ">"}
"""Sign for people of each comparison."""
DERIVED = frozenset(Check.model_computed_fields)
"""Fields of a check that follow from the others."""


class TrialLuck(BaseModel):
    """Best result to expect of all trials without any edge, for a record as long as the judged record."""

    model_config = ConfigDict(frozen=True)

    trials: int
    """Trials counted for the market and timeframe, the judged trial included."""
    effective_trials: float
    """Number of independent trials with the same expected maximum, at least the policy's minimum."""
    deviation: float
    """Standard deviation of the annualised Sharpe ratio of a trial without an edge."""
    sharpe_ratio: float
    """Expected annualised Sharpe ratio of the luckiest trial."""
    bars_per_year: float
    """Annualisation factor of the ratios."""
    forward_bars: float = 0.0
    """Number of independent forward bars of the judged record."""
    side_by_side: float = 1.0
    """Number of recipes followed on the forward bars."""
    matched: tuple[MatchedMarket, ...] = ()
    """Other series with the same daily returns, whose trials are counted; empty for a verdict before series
    were compared."""
    markets: int | None = None
    """Markets with trials in the year before the verdict, this one included; None for a verdict before they
    were counted."""
    fleet_error: float | None = None
    """Largest probability, 0..1, that luck is promoted in any of the markets within a year; None like
    `markets`."""


class RecordFacts(BaseModel):
    """Judged record of a recipe: the first walk-forward, then bars on which versions were followed."""

    model_config = ConfigDict(frozen=True)

    begun: datetime
    """Open time of the first bar."""
    walk_forward_until: datetime
    """Open time of the last bar of the first walk-forward; later bars are forward bars."""
    forward_bars: int = 0
    versions: int = 0
    """Number of versions followed on the forward bars."""
    side_by_side: int = 1
    """Number of recipes of the market with registered versions, the judged recipe included."""
    corrected_from: datetime | None = None
    """First bar that was corrected since the version before; positions of the first walk-forward from there
    on were computed anew."""
    problem: str | None = None
    """Remark on a version whose bundle was lost and trained again, or cannot be loaded here, so that the
    walk-forward stands in."""

    @field_serializer("begun", "walk_forward_until", "corrected_from")
    def _as_text(self, moment: datetime | None) -> str | None:
        """ISO 8601: the ledger stores verdicts as JSON."""
        return None if moment is None else moment.isoformat()

    @property
    def sentence(self) -> str:
        """`out of sample from 2023-01-01: walk-forward to 2025-11-20, then 168 bars forward by 1 version`."""
        forward = "no forward bar yet"
        if self.forward_bars:
            noun = "version" if self.versions == 1 else "versions"
            forward = f"then {self.forward_bars:,} bars forward by {self.versions} {noun}"
        corrected = ""
        if self.corrected_from is not None:
            corrected = f"; bars corrected from {self.corrected_from:%Y-%m-%d %H:%M} UTC on"
        problem = f"; {self.problem}" if self.problem else ""
        return (
            f"out of sample from {self.begun:%Y-%m-%d}: walk-forward to {self.walk_forward_until:%Y-%m-%d}, "
            f"{forward}{corrected}{problem}"
        )


class IntervalEstimate(BaseModel):
    """An estimate with an interval of 95 %."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float

    def text(self, write: Callable[[float], str]) -> str:
        """Estimate and interval: "3.1% (-4.0% to 10.2%)"."""
        return measures.with_interval(self.value, self.low, self.high, write)


def ratio_cell(ratio: float, interval: IntervalEstimate | None) -> str:
    """A Sharpe ratio for people, with the interval where one is known: "1.20 (0.30 to 2.10)"."""
    return measures.ratio(ratio) if interval is None else interval.text(measures.ratio)


SYMBOL_COLUMNS = (
    "Sharpe ratio",
    "net return",
    "volatility",
    "max drawdown",
    "turnover a year",
    "exposure",
    "trades",
    "contribution",
    "buying and holding",
)
"""Titles of the cells of a `SymbolResult`."""


class SymbolResult(BaseModel):
    """Out-of-sample results of one symbol of a pool, under the terms of the symbol's market."""

    model_config = ConfigDict(frozen=True)

    symbol: str
    sharpe_ratio: float
    """Annualised."""
    sharpe_interval: IntervalEstimate | None = None
    """The ratio with the interval of 95 %; None for returns that never vary, too few bars, and a verdict
    before intervals were stored here."""
    total_return: float
    """Net return over the period, as a fraction of the starting capital."""
    volatility: float
    """Annualised."""
    max_drawdown: float
    """Negative fraction."""
    turnover: float
    """Traded value over equity per year."""
    exposure: float
    """Mean absolute exposure, as a fraction of equity."""
    trades: int
    contribution: float
    """Sum of the returns of the bars times the symbol's share of the capital; the contributions add up to the
    sum of the portfolio's returns."""
    buy_and_hold_return: float
    """Net return of holding over the same bars, under the same terms."""
    terms_digest: str
    """SHA-256 of the terms of the symbol's market, hexadecimal."""
    costs: str
    """Costs of the market as a clause."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Formatted values, in the order of `SYMBOL_COLUMNS`."""
        return (
            ratio_cell(self.sharpe_ratio, self.sharpe_interval),
            measures.signed_percent(self.total_return),
            measures.percent(self.volatility),
            measures.percent(self.max_drawdown),
            measures.ratio(self.turnover),
            measures.percent(self.exposure),
            measures.count(self.trades),
            measures.signed_percent(self.contribution),
            measures.signed_percent(self.buy_and_hold_return),
        )


class BaselineComparison(BaseModel):
    """A baseline on the bars of a verdict, under the same terms, and the version's return against the
    baseline."""

    model_config = ConfigDict(frozen=True)

    name: str
    """"buy_and_hold", "hold_at_volatility" or "trend"."""
    total_return: float
    """Net return over the period, as a fraction."""
    sharpe_ratio: float
    """Annualised."""
    sharpe_interval: IntervalEstimate | None = None
    """The ratio with the interval of 95 %; None for returns that never vary, too few bars, and a verdict
    before intervals were stored here."""
    volatility: float
    """Annualised."""
    max_drawdown: float
    """Negative fraction."""
    turnover: float
    """Traded value over equity per year."""
    exposure: float
    """Mean absolute exposure, as a fraction of equity."""
    excess_return: IntervalEstimate
    """The version's mean return less the baseline's, a fraction a year."""
    alpha: IntervalEstimate
    """Intercept of the regression of the version's returns on the baseline's, a fraction a year."""
    beta: IntervalEstimate
    """Slope of the regression."""

    @property
    def label(self) -> str:
        """Name for people."""
        return BASELINE_LABELS.get(self.name, self.name)

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts for people, in the order of `BASELINE_COLUMNS`."""
        return (
            self.label,
            measures.signed_percent(self.total_return),
            ratio_cell(self.sharpe_ratio, self.sharpe_interval),
            measures.percent(self.volatility),
            measures.percent(self.max_drawdown),
            self.excess_return.text(measures.percent),
            self.alpha.text(measures.percent),
            self.beta.text(measures.ratio),
        )


BASELINE_COLUMNS = (
    "baseline",
    "net return",
    "Sharpe ratio",
    "volatility",
    "max drawdown",
    "excess return a year",
    "alpha a year",
    "beta",
)
"""Titles of the cells of a `BaselineComparison`."""

BASELINE_LABELS = {
    "buy_and_hold": "buy and hold",
    "hold_at_volatility": "hold at the same volatility",
    "trend": "trend rule",
}


def _in_order(params: dict[str, float | int | None]) -> dict[str, float | int | None]:
    """Parameters in one order: a stored verdict, whose JSON PostgreSQL reorders, equals a new one."""
    return dict(sorted(params.items()))


class RuleResult(BaseModel):
    """A rule strategy at its defaults on the bars of a verdict, under the same terms; for information."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Family: "momentum"."""
    params: Annotated[dict[str, float | int | None], AfterValidator(_in_order)]
    """Parameters by name, in alphabetical order, the defaults of the release; None for a rule without the
    limit."""
    total_return: float
    """Net return over the period, as a fraction."""
    sharpe_ratio: float
    """Annualised."""
    sharpe_interval: IntervalEstimate | None = None
    """The ratio with the interval of 95 %; None for returns that never vary, and too few bars."""
    max_drawdown: float
    """Negative fraction."""
    win_rate: float | None
    """Share of the closed trades with a gain; None without trades."""
    trades: int

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts for people, in the order of `RULE_COLUMNS`."""
        own = sorted(self.params.keys() - _SHARED, key=lambda name: (name == "threshold", name))
        return (
            self.name,
            ", ".join(f"{name}={self.params[name]:g}" for name in own),
            ratio_cell(self.sharpe_ratio, self.sharpe_interval),
            measures.percent(self.max_drawdown),
            measures.NOT_MEASURED if self.win_rate is None else measures.percent(self.win_rate),
            measures.signed_percent(self.total_return),
            measures.count(self.trades),
        )


RULE_COLUMNS = ("rule", "parameters", "Sharpe ratio", "max drawdown", "win rate", "net return", "trades")
"""Titles of the cells of a `RuleResult`."""
_SHARED = {"stop_loss", "take_profit", "max_holding"}
RULE_NOTE = (
    "For information, no part of the verdict: the rule strategies at their defaults, which were fixed before "
    "any result was looked at, on the same bars and under the same costs. In brackets the interval of 95 %."
)
"""Sentences below a table of rules."""


FOLD_COLUMNS = ("fold", "rounds", "loss", "skill", "Sharpe ratio", "exposure", "trades", "remark")
"""Titles of the cells of a `FoldSummary`."""


class FoldSummary(BaseModel):
    """A fold of the walk-forward with the judged seed: the fit of the model, and the results on the test bars
    after costs."""

    model_config = ConfigDict(frozen=True)

    start: datetime
    """Open time of the first test bar."""
    end: datetime
    """Open time of the last test bar."""
    rounds: float | None
    """Trees, or steps of a network; None for a kind without."""
    loss: float | None
    """Loss on the rows that the fit left out; None for a kind without a loss."""
    loss_of_constant: float | None
    """Loss of a constant forecast on the same rows."""
    sharpe_ratio: float
    """Annualised."""
    sharpe_interval: IntervalEstimate | None = None
    """The ratio with the interval of 95 %; None for returns that never vary, too few bars, and a verdict
    before intervals were stored here."""
    exposure: float
    """Mean absolute exposure, as a fraction of equity."""
    trades: int
    """Trades entered in the fold."""
    remarks: tuple[str, ...] = ()
    """Degenerate properties of the fold: no position, one side throughout, a fit that learned nothing."""

    @field_serializer("start", "end")
    def _as_text(self, moment: datetime) -> str:
        # verdicts are stored as JSON that keeps NaN and infinity
        return moment.isoformat()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def skill(self) -> float | None:
        """1 - loss / loss of the constant; None where unknown."""
        if self.loss is None or not self.loss_of_constant:
            return None
        return 1.0 - self.loss / self.loss_of_constant

    @property
    def cells(self) -> tuple[str, ...]:
        """Formatted values, in the order of `FOLD_COLUMNS`."""
        return (
            f"{self.start:%Y-%m-%d} to {self.end:%Y-%m-%d}",
            "-" if self.rounds is None else measures.count(self.rounds),
            "-" if self.loss is None else measures.significant(self.loss),
            "-" if self.skill is None else measures.fine_percent(self.skill),
            ratio_cell(self.sharpe_ratio, self.sharpe_interval),
            measures.percent(self.exposure),
            measures.count(self.trades),
            "; ".join(self.remarks) or "-",
        )


class Verdict(BaseModel):
    """The gate's decision, with every check and the reasons."""

    model_config = ConfigDict(frozen=True)

    decision: Decision
    score: float
    """Promotion score, 0..100; for ranking only, without influence on the decision."""
    checks: tuple[Check, ...] = Field(validation_alias=AliasChoices("checks", "legs"))
    reasons: tuple[str, ...]
    """Sentences, each about a missed condition; empty if the version passed."""
    policy: str = ""
    """Name of the gate policy."""
    policy_hash: str = ""
    """SHA-256 of all levels of the gate policy, hexadecimal."""
    luck: TrialLuck | None = None
    """None if the policy requires no evidence, or no evidence is available."""
    more_bars: float | None = None
    """Additional bars until the decision, if the returns continue as before; inf: never. None unless the
    decision is INCONCLUSIVE."""
    seed_sharpes: tuple[float, ...] = ()
    """Annualised Sharpe ratio of the recipe with each seed, ascending, the judged seed included. Empty with a
    single seed."""
    warnings: tuple[str, ...] = ()
    baselines: tuple[BaselineComparison, ...] = ()
    """Comparisons with the three baselines, for information; empty for a verdict before baselines were
    compared."""
    rules: tuple[RuleResult, ...] = ()
    """Rule strategies at their defaults on the same bars, for information; empty for a verdict by an earlier
    release."""
    record: RecordFacts | None = None
    """The judged record of the recipe; None for a verdict before records grew over retrains."""
    by_symbol: tuple[SymbolResult, ...] = ()
    """Results of each member of a pool, whose equal-risk portfolio was judged; empty for one market."""
    folds: tuple[FoldSummary, ...] = ()
    """Folds of the walk-forward with the judged seed; empty for a verdict by an earlier release."""

    @property
    def passed(self) -> bool:
        return self.decision is Decision.PASS

    @property
    def missed(self) -> tuple[Check, ...]:
        """Missed checks, one for each reason."""
        return tuple(check for check in self.checks if check.status is CheckStatus.MISSED)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Reasons, one for each missed check, and then the warnings as notes, for people."""
        return (*self.reasons, *(f"Note: {warning}" for warning in self.warnings))

    def estimate_of(self, name: str) -> str | None:
        """Value of a check for people, with interval; None without the check."""
        return next((check.estimate for check in self.checks if check.name == name), None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def headline(self) -> str:
        """Decision and count of the deciding checks: "FAIL: 2 of 9 checks missed"."""
        return f"{self.decision.value.upper()}: {self.count}"

    @property
    def count(self) -> str:
        """Count of the deciding checks: "2 of 9 checks missed"."""
        statuses = [check.status for check in self.checks if check.decides]
        missed = statuses.count(CheckStatus.MISSED)
        carried = statuses.count(CheckStatus.CARRIED)
        text = f"{missed} of {len(statuses)} checks missed"
        if not missed:
            text = f"{len(statuses) - carried} of {len(statuses)} checks met"
        also = f", {carried} missed but carried" if carried else ""
        return f"{text}{also}"

    @computed_field(json_schema_extra={"deprecated": True})  # type: ignore[prop-decorator]
    @property
    def legs(self) -> tuple[Check, ...]:
        """Former name of `checks`, repeated for one release."""
        return self.checks
