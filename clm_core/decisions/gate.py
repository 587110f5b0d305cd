"""The promotion gate: what was measured and a policy in, a verdict with every reason out.

Soundness and thresholds first: one missed, and the version FAILS. Then the evidence: that its Sharpe ratio
is more than the luck of everything that was tried, on a record long enough to say so, and that it is not
worse than the champion on bars neither was trained on. Where that is not shown, the verdict is INCONCLUSIVE.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from clm_core.backtest.results import Metrics
from clm_core.decisions.criteria import PromotionCriteria
from clm_core.decisions.gate_policy import EvidenceLevels, GatePolicy
from clm_core.domain.evaluations import Check, CheckKind, Decision, TrialLuck, Verdict
from clm_core.evidence import paired
from clm_core.evidence.soundness import LARGEST_SHARE_OF_ONE_SIDE, SMALLEST_DEVIATION, Activity
from clm_core.evidence.track_record import TrackRecord, probabilistic_sharpe_ratio
from clm_core.evidence.trials import TrialCount, bars_to_pass

THRESHOLDS_ALONE = (
    "Judged by thresholds alone: versions without any edge pass them one time in five at 50 trades, and of "
    "twenty retrains one almost surely does."
)
LEAD = "lead_over_champion_bps"


@dataclass(frozen=True)
class Comparison:
    """Challenger and champion on the same bars, at the same costs; neither was trained on any of them."""

    champion: str
    """Label of its version."""
    record: paired.PairedRecord
    """Of the differences of their returns, challenger less champion."""

    def most(self, levels: EvidenceLevels) -> float:
        """At best, what it earns more than the champion a bar, as a fraction; NaN: too few bars."""
        if self.record.n >= paired.FEWEST and self.record.squares == 0.0:
            return self.record.first
        return paired.bounds(self.record, levels.champion_alpha, levels.champion_bars).high


@dataclass(frozen=True)
class Case:
    """What a version is judged by: its out-of-sample results after costs, and what they stand beside."""

    metrics: Metrics
    activity: Activity
    record: TrackRecord
    """Of the returns of a bar."""
    trials: TrialCount
    """Of the market and timeframe, this one included."""
    periods_per_year: float
    against: Comparison | None
    """None: nothing serves."""


def judge(case: Case, policy: GatePolicy) -> Verdict:
    """PASS, FAIL or INCONCLUSIVE, with every condition and the reasons.

    A value that is missing, NaN or infinite refuses, whatever the limit is.
    """
    metrics = case.metrics
    against = (*_soundness(case.activity), *_thresholds(metrics, policy.criteria))
    proof = () if policy.evidence is None else _evidence(case, policy.evidence)
    legs = tuple(leg for leg, _ in (*against, *proof))
    refusals = tuple(why for leg, why in (*against, *proof) if _refuses(leg))
    missing = tuple(why for leg, why in proof if not leg.passed)
    undecided = not refusals and bool(missing)
    return Verdict(
        decision=_decision(refusals, missing),
        score=promotion_score(metrics.sharpe_ratio, metrics.win_rate, metrics.profit_factor),
        checks=legs,
        reasons=refusals or missing,
        policy=policy.name,
        policy_hash=policy.digest,
        luck=None if policy.evidence is None else _luck(case),
        more_bars=_more_bars(case, policy.evidence) if undecided and policy.evidence else None,
        warnings=() if policy.evidence else (THRESHOLDS_ALONE,),
    )


def _decision(refusals: tuple[str, ...], missing: tuple[str, ...]) -> Decision:
    if refusals:
        return Decision.FAIL
    return Decision.INCONCLUSIVE if missing else Decision.PASS


def _refuses(leg: Check) -> bool:
    """Whether it is missed in a way that more evidence would not mend."""
    if leg.kind is CheckKind.EVIDENCE and not (leg.name == LEAD and math.isfinite(leg.value)):
        return False
    return not leg.passed


Reasoned = tuple[Check, str]
"""A condition, and why the version does not meet it if it doesn't."""


def _soundness(activity: Activity) -> tuple[Reasoned, ...]:
    share = _at_most("share_of_one_side", activity.share, LARGEST_SHARE_OF_ONE_SIDE, CheckKind.SOUNDNESS)
    deviation = _at_least("position_deviation", activity.deviation, SMALLEST_DEVIATION, CheckKind.SOUNDNESS)
    return (
        (share, f"collapsed: {activity.share:.1%} of its positions are {activity.commonest_side}"),
        (deviation, f"collapsed: its positions vary by {activity.deviation:.2g}, hardly at all"),
    )


def _thresholds(metrics: Metrics, criteria: PromotionCriteria) -> tuple[Reasoned, ...]:
    drawdown = abs(metrics.max_drawdown) if _is_number(metrics.max_drawdown) else metrics.max_drawdown
    legs = (
        _at_least("sharpe_ratio", metrics.sharpe_ratio, criteria.min_sharpe_ratio),
        _at_least("win_rate", metrics.win_rate, criteria.min_win_rate),
        _at_least("profit_factor", metrics.profit_factor, criteria.min_profit_factor),
        _at_most("max_drawdown", drawdown, criteria.max_drawdown),
        _at_least("trades", metrics.trades, criteria.min_trades),
    )
    return tuple((leg, _refusal(leg)) for leg in legs)


def _evidence(case: Case, levels: EvidenceLevels) -> tuple[Reasoned, ...]:
    luck = case.trials.luck(case.record.effective_bars)
    deflated = probabilistic_sharpe_ratio(case.record, luck)
    needed = bars_to_pass(case.record, case.trials, levels.min_deflated_sharpe)
    beyond_luck = _at_least("deflated_sharpe_ratio", deflated, levels.min_deflated_sharpe, CheckKind.EVIDENCE)
    # a limit of inf is none that a length could meet; NaN neither
    long_enough = _at_least("track_record_bars", case.record.bars, needed, CheckKind.EVIDENCE)
    legs = [
        (beyond_luck, f"{_refusal(beyond_luck)}: {_luckiest(case, luck)}"),
        (long_enough, _too_short(case.record.bars, needed)),
    ]
    return (*legs, *([] if case.against is None else [_against_champion(case.against, levels)]))


def _luckiest(case: Case, luck: float) -> str:
    annual = luck * math.sqrt(case.periods_per_year)
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


def _against_champion(against: Comparison, levels: EvidenceLevels) -> Reasoned:
    """By the upper bound of the lead: below zero it is worse; unknown, nobody has shown that it isn't."""
    bars, most = against.record.n, against.most(levels) * 1e4
    leg = _at_least(LEAD, most, 0.0, CheckKind.EVIDENCE)
    if not math.isfinite(most):
        return leg, (
            f"only {bars} bars are new to both it and champion {against.champion}: "
            f"{paired.FEWEST} are the fewest to compare on"
        )
    return leg, (
        f"it earns less than champion {against.champion}: at best {most:.2f} bps a bar "
        f"over {bars:,} common bars"
    )


def _luck(case: Case) -> TrialLuck:
    bars, yearly = case.record.effective_bars, math.sqrt(case.periods_per_year)
    return TrialLuck(
        trials=case.trials.trials,
        effective_trials=case.trials.effective,
        deviation=math.sqrt(case.trials.variance(bars)) * yearly,
        sharpe_ratio=case.trials.luck(bars) * yearly,
        bars_per_year=case.periods_per_year,
    )


def _more_bars(case: Case, levels: EvidenceLevels) -> float:
    """Until the slowest of what is missing is there."""
    needed = bars_to_pass(case.record, case.trials, levels.min_deflated_sharpe) - case.record.bars
    common = 0 if case.against is None else paired.FEWEST - case.against.record.n
    return max(needed, float(common), 0.0) if not math.isnan(needed) else math.inf


def promotion_score(sharpe_ratio: float, win_rate: float, profit_factor: float) -> float:
    """Rank of a version, 0..100: half Sharpe (2.0 is full), 30 % win rate (from 50 % to 100 %),
    20 % profit factor (from 1.0 to 3.0); each part clamped, a value that is not finite counts 0.
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
    return _leg(kind, name, value, limit, ">=", lambda v: v >= limit, lambda v: v - limit)


def _at_most(name: str, value: float, limit: float, kind: CheckKind = CheckKind.THRESHOLD) -> Check:
    return _leg(kind, name, value, limit, "<=", lambda v: v <= limit, lambda v: limit - v)


def _leg(
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
    """Numpy's floats are Python floats; its integers and booleans are not, and neither is text."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite_number(value: float) -> bool:
    return _is_number(value) and math.isfinite(value)


def _refusal(leg: Check) -> str:
    if not math.isfinite(leg.value):
        return f"{leg.label} could not be measured"
    asked = "below the required" if leg.comparison == ">=" else "above the allowed"
    shown = f"{leg.value:.4g}"
    if shown == f"{leg.limit:.4g}":
        shown = repr(leg.value)  # refused by a hair: it must not read like its limit
    return f"{leg.label} {shown} is {asked} {leg.limit:g}"
