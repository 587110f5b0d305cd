"""The promotion gate: measured results and a policy in, a verdict with every reason out.

Soundness and thresholds come first: a version that misses a single check FAILS. Evidence follows: a Sharpe
ratio above the trial luck of all trials, a track record long enough to show so, and no worse return than the
champion's on bars unseen by both. Missing evidence makes the verdict INCONCLUSIVE.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from clm_core.backtest.results import Metrics
from clm_core.decisions.gate_policy import EvidenceLevels, GatePolicy, PromotionCriteria
from clm_core.domain.evaluations import Check, CheckKind, Decision, TrialLuck, Verdict
from clm_core.evidence import paired
from clm_core.evidence.soundness import MAX_SHARE_OF_ONE_SIDE, MIN_POSITION_DEVIATION, Activity
from clm_core.evidence.track_record import TrackRecord, probabilistic_sharpe_ratio
from clm_core.evidence.trials import TrialCount, bars_to_pass

THRESHOLDS_ALONE = (
    "Judged by thresholds alone: versions without any edge pass them one time in five at 50 trades, and of "
    "twenty retrains one almost surely does."
)
RUINED = "ruined: the losses took all the capital within the test, equity reached 0"
LEAD = "lead_over_champion_bps"


@dataclass(frozen=True)
class Comparison:
    """Challenger and champion on the same bars at the same costs, all bars unseen by both trainings."""

    champion: str
    """Version label of the champion."""
    record: paired.PairedRecord
    """Differences of the returns, challenger less champion, as fractions a bar."""

    def max_lead(self, levels: EvidenceLevels) -> float:
        """Upper bound of the challenger's lead over the champion, a fraction a bar; NaN for too few bars."""
        if self.record.n >= paired.MIN_DIFFERENCES and self.record.squares == 0.0:
            return self.record.first
        return paired.bounds(self.record, levels.champion_alpha, levels.champion_bars).high


@dataclass(frozen=True)
class Case:
    """Evidence for one version: out-of-sample results after costs, the trials made and the champion."""

    metrics: Metrics
    activity: Activity
    record: TrackRecord
    """Track record of the returns of a bar."""
    trials: TrialCount
    """All trials of the market and timeframe, the judged trial included."""
    periods_per_year: float
    comparison: Comparison | None
    """Comparison with the champion, or None without a production version."""


def judge(case: Case, policy: GatePolicy) -> Verdict:
    """PASS, FAIL or INCONCLUSIVE, with every check and the reasons.

    A value that is missing, NaN or infinite fails its check, whatever the limit.
    """
    metrics = case.metrics
    results = (*_soundness(case), *_thresholds(metrics, policy.criteria))
    evidence = () if policy.evidence is None else _evidence(case, policy.evidence)
    checks = tuple(check for check, _ in (*results, *evidence))
    refusals = tuple(reason for check, reason in (*results, *evidence) if _refuses(check))
    missing = tuple(reason for check, reason in evidence if not check.passed)
    undecided = not refusals and bool(missing)
    return Verdict(
        decision=_decision(refusals, missing),
        score=promotion_score(metrics.sharpe_ratio, metrics.win_rate, metrics.profit_factor),
        checks=checks,
        reasons=refusals or missing,
        policy=policy.name,
        policy_hash=policy.digest,
        luck=None if policy.evidence is None else _trial_luck(case),
        more_bars=_more_bars(case, policy.evidence) if undecided and policy.evidence else None,
        warnings=() if policy.evidence else (THRESHOLDS_ALONE,),
    )


def _decision(refusals: tuple[str, ...], missing: tuple[str, ...]) -> Decision:
    if refusals:
        return Decision.FAIL
    return Decision.INCONCLUSIVE if missing else Decision.PASS


def _refuses(check: Check) -> bool:
    """True for a failed check that more evidence would not mend."""
    if check.kind is CheckKind.EVIDENCE and not (check.name == LEAD and math.isfinite(check.value)):
        return False
    return not check.passed


Reasoned = tuple[Check, str]
"""A check, and the reason to give should the check fail."""


def _soundness(case: Case) -> tuple[Reasoned, ...]:
    activity = case.activity
    ruined = _at_most("ruined", _ruined(case.metrics.max_drawdown), 0.0, CheckKind.SOUNDNESS)
    share = _at_most("share_of_one_side", activity.share, MAX_SHARE_OF_ONE_SIDE, CheckKind.SOUNDNESS)
    deviation = _at_least(
        "position_deviation", activity.deviation, MIN_POSITION_DEVIATION, CheckKind.SOUNDNESS
    )
    return (
        (ruined, RUINED if ruined.value == 1.0 else _refusal(ruined)),
        (share, f"collapsed: {activity.share:.1%} of its positions are {activity.commonest_side}"),
        (deviation, f"collapsed: its positions vary by {activity.deviation:.2g}, hardly at all"),
    )


def _ruined(max_drawdown: float) -> float:
    """1.0 if equity reached 0, 0.0 if not, NaN without a usable drawdown."""
    return float(max_drawdown <= -1.0) if _is_finite_number(max_drawdown) else math.nan


def _thresholds(metrics: Metrics, criteria: PromotionCriteria) -> tuple[Reasoned, ...]:
    drawdown = abs(metrics.max_drawdown) if _is_number(metrics.max_drawdown) else metrics.max_drawdown
    checks = (
        _at_least("sharpe_ratio", metrics.sharpe_ratio, criteria.min_sharpe_ratio),
        _at_least("win_rate", metrics.win_rate, criteria.min_win_rate),
        _at_least("profit_factor", metrics.profit_factor, criteria.min_profit_factor),
        _at_most("max_drawdown", drawdown, criteria.max_drawdown),
        _at_least("trades", metrics.trades, criteria.min_trades),
    )
    return tuple((check, _refusal(check)) for check in checks)


def _evidence(case: Case, levels: EvidenceLevels) -> tuple[Reasoned, ...]:
    luckiest_sharpe = case.trials.expected_maximum(case.record.effective_bars)
    deflated = probabilistic_sharpe_ratio(case.record, luckiest_sharpe)
    needed = bars_to_pass(case.record, case.trials, levels.min_deflated_sharpe)
    beyond_trial_luck = _at_least(
        "deflated_sharpe_ratio", deflated, levels.min_deflated_sharpe, CheckKind.EVIDENCE
    )
    # no length can meet a limit of inf or NaN
    long_enough = _at_least("track_record_bars", case.record.bars, needed, CheckKind.EVIDENCE)
    checks = [
        (beyond_trial_luck, f"{_refusal(beyond_trial_luck)}: {_luckiest(case, luckiest_sharpe)}"),
        (long_enough, _too_short(case.record.bars, needed)),
    ]
    return (*checks, *([] if case.comparison is None else [_versus_champion(case.comparison, levels)]))


def _luckiest(case: Case, sharpe: float) -> str:
    annual = sharpe * math.sqrt(case.periods_per_year)
    return (
        f"the luckiest of {case.trials.trials} trials, counted as {case.trials.effective:.1f} independent "
        f"ones, would show a Sharpe ratio of {annual:.2f}"
    )


def _too_short(bars: int, needed: float) -> str:
    if math.isfinite(needed):
        return (
            f"track record of {bars:,} bars is too short: {needed - bars:,.0f} more at this rate would decide"
        )
    return f"track record of {bars:,} bars is too short, and no number of bars at this rate would decide"


def _versus_champion(comparison: Comparison, levels: EvidenceLevels) -> Reasoned:
    """Check of the upper bound of the lead: below zero is worse; an unknown bound is missing evidence."""
    bars = comparison.record.n
    lead_bps = comparison.max_lead(levels) * 1e4
    check = _at_least(LEAD, lead_bps, 0.0, CheckKind.EVIDENCE)
    if not math.isfinite(lead_bps):
        return check, (
            f"only {bars} bars are new to both the challenger and champion {comparison.champion}: "
            f"a comparison needs at least {paired.MIN_DIFFERENCES}"
        )
    return check, (
        f"the challenger earns less than champion {comparison.champion}: at best {lead_bps:.2f} bps a bar "
        f"over {bars:,} common bars"
    )


def _trial_luck(case: Case) -> TrialLuck:
    bars = case.record.effective_bars
    yearly = math.sqrt(case.periods_per_year)
    return TrialLuck(
        trials=case.trials.trials,
        effective_trials=case.trials.effective,
        deviation=math.sqrt(case.trials.variance(bars)) * yearly,
        sharpe_ratio=case.trials.expected_maximum(bars) * yearly,
        bars_per_year=case.periods_per_year,
    )


def _more_bars(case: Case, levels: EvidenceLevels) -> float:
    """Bars to come until the slowest of the missing evidence is complete; inf if never."""
    needed = bars_to_pass(case.record, case.trials, levels.min_deflated_sharpe) - case.record.bars
    common = 0 if case.comparison is None else paired.MIN_DIFFERENCES - case.comparison.record.n
    return max(needed, float(common), 0.0) if not math.isnan(needed) else math.inf


def promotion_score(sharpe_ratio: float, win_rate: float, profit_factor: float) -> float:
    """Rank of a version, 0..100: half Sharpe ratio (2.0 is full), 30 % win rate (from 50 % to 100 %), 20 %
    profit factor (from 1.0 to 3.0); each part is clamped, a value that is not finite counts 0.
    """
    return (
        0.5 * _part(sharpe_ratio, 0.0, 2.0)
        + 0.3 * _part(win_rate, 0.5, 1.0)
        + 0.2 * _part(profit_factor, 1.0, 3.0)
    )


def _part(value: float, zero: float, full: float) -> float:
    if not _is_finite_number(value):
        return 0.0
    return min(max((value - zero) / (full - zero), 0.0), 1.0) * 100.0


def _at_least(name: str, value: float, limit: float, kind: CheckKind = CheckKind.THRESHOLD) -> Check:
    return _check(kind, name, value, limit, ">=", lambda v: v >= limit, lambda v: v - limit)


def _at_most(name: str, value: float, limit: float, kind: CheckKind = CheckKind.THRESHOLD) -> Check:
    return _check(kind, name, value, limit, "<=", lambda v: v <= limit, lambda v: limit - v)


def _check(
    kind: CheckKind,
    name: str,
    value: float,
    limit: float,
    comparison: str,
    holds: Callable[[float], bool],
    margin: Callable[[float], float],
) -> Check:
    usable = _is_finite_number(value)
    return Check(
        name=name,
        kind=kind,
        value=float(value) if _is_number(value) else math.nan,
        limit=limit,
        comparison=comparison,
        passed=usable and holds(value),
        margin=margin(value) if usable else math.nan,
    )


def _is_number(value: object) -> bool:
    """True for Python numbers and NumPy floats; False for NumPy integers, booleans and text."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite_number(value: float) -> bool:
    return _is_number(value) and math.isfinite(value)


def _refusal(check: Check) -> str:
    if not math.isfinite(check.value):
        return f"{check.label} could not be measured"
    requirement = "below the required" if check.comparison == ">=" else "above the allowed"
    value = f"{check.value:.4g}"
    if value == f"{check.limit:.4g}":
        value = repr(check.value)  # refused by a hair: the value must not read like the limit
    return f"{check.label} {value} is {requirement} {check.limit:g}"
