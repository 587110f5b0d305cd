"""Evidence checks: trial luck, the track record needed (for information), comparison with the champion."""

import math

from clm_core.decisions.cases import Case, Comparison, RecipeReplacement
from clm_core.decisions.checks import limits
from clm_core.decisions.checks.limits import Reasoned
from clm_core.decisions.gate_policy import EvidenceLevels
from clm_core.decisions.shadow_decision import TUNED_FOR
from clm_core.domain.evaluations import CheckKind, TrialLuck
from clm_core.evidence import paired
from clm_core.evidence.equal_volatility import WARM_UP
from clm_core.evidence.track_record import probabilistic_sharpe_ratio
from clm_core.evidence.trials import bars_to_pass

LEAD = "lead_over_champion_bps"


def evidence_checks(case: Case, levels: EvidenceLevels) -> tuple[Reasoned, ...]:
    luckiest_sharpe = case.trials.expected_maximum(case.record.effective_bars)
    deflated = probabilistic_sharpe_ratio(case.record, luckiest_sharpe)
    needed = bars_to_pass(case.record, case.trials, levels.min_deflated_sharpe)
    beyond_trial_luck = limits.at_least(
        "deflated_sharpe_ratio", deflated, levels.min_deflated_sharpe, CheckKind.EVIDENCE
    )
    # no length can meet a limit of inf or NaN; the deflated Sharpe ratio decides the same question
    long_enough = limits.at_least("track_record_bars", case.record.bars, needed, CheckKind.EVIDENCE)
    long_enough = long_enough.model_copy(update={"decides": False})
    shortfall = _too_short(case.record.bars, needed)
    why = f"{case.record.bars:,} bars of these returns have no Sharpe ratio"
    if math.isfinite(deflated):
        why = f"{_luckiest(case, luckiest_sharpe)}; {shortfall}"
    checks = [(beyond_trial_luck, f"{limits.refusal(beyond_trial_luck)}: {why}"), (long_enough, shortfall)]
    return (*checks, *_versus_champion(case, levels))


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


def _versus_champion(case: Case, levels: EvidenceLevels) -> tuple[Reasoned, ...]:
    """Check that the version is not proven worse than the champion.

    Without enough common bars nothing is proven; what the kind of the change asks beyond is a check of
    `checks.succession`.
    """
    comparison = case.comparison
    if comparison is None:
        return ()
    if comparison.problem is not None:
        return (_not_compared(comparison, comparison.problem),)
    if case.succession is not None and not math.isfinite(comparison.max_lead(levels)):
        return ()
    return (_lead(comparison, levels),)


def _not_compared(comparison: Comparison, problem: str) -> Reasoned:
    """Missed check of a comparison that could not be made: no version is promoted unseen beside it."""
    check = limits.at_least(LEAD, math.nan, 0.0, CheckKind.EVIDENCE)
    return check, f"the challenger cannot be compared with champion {comparison.champion}: {problem}"


def _lead(comparison: Comparison, levels: EvidenceLevels) -> Reasoned:
    """Check of the upper bound of the lead: below zero is worse; an unknown bound is missing evidence."""
    bars = comparison.record.n
    lead_bps = comparison.max_lead(levels) * 1e4
    check = limits.at_least(LEAD, lead_bps, 0.0, CheckKind.EVIDENCE)
    check = check.model_copy(update={"note": _until_decided(comparison, levels)})
    if not math.isfinite(lead_bps):
        return check, (
            f"only {bars} bars are new to both the challenger and champion {comparison.champion}: "
            f"a comparison needs at least {paired.MIN_DIFFERENCES}"
        )
    return check, (
        f"the challenger earns less than champion {comparison.champion}: at best {lead_bps:.2f} bps a bar "
        f"over {bars:,} common bars at equal volatility"
    )


def _until_decided(comparison: Comparison, levels: EvidenceLevels) -> str:
    """Number of common bars, and the number at which a difference would show at this rate."""
    record = comparison.record
    needed = paired.differences_to_decide(record, levels.champion_alpha, levels.champion_bars)
    bars = f"over {record.n:,} common bars"
    return f"{bars}, {needed:,.0f} would decide at this rate" if record.n < needed < math.inf else bars


def trial_luck(case: Case) -> TrialLuck:
    bars = case.record.effective_bars
    yearly = math.sqrt(case.periods_per_year)
    return TrialLuck(
        trials=case.trials.trials,
        effective_trials=case.trials.effective,
        deviation=math.sqrt(case.trials.variance(bars)) * yearly,
        sharpe_ratio=case.trials.expected_maximum(bars) * yearly,
        bars_per_year=case.periods_per_year,
        forward_bars=case.trials.forward_bars,
        side_by_side=case.trials.side_by_side,
    )


def never_decides(case: Case, levels: EvidenceLevels) -> bool:
    """True if no number of bars at the measured rate would prove the version."""
    return math.isinf(bars_to_pass(case.record, case.trials, levels.min_deflated_sharpe))


def more_bars(case: Case, levels: EvidenceLevels) -> float:
    """Bars to come until the slowest of the missing evidence is complete; inf if never."""
    needed = bars_to_pass(case.record, case.trials, levels.min_deflated_sharpe) - case.record.bars
    return max(needed, _comparison_bars(case, levels), 0.0) if not math.isnan(needed) else math.inf


def _comparison_bars(case: Case, levels: EvidenceLevels) -> float:
    """Bars to come until the comparison with the champion can decide; inf where none can be made."""
    if case.comparison is not None and case.comparison.problem is not None:
        return math.inf
    if isinstance(case.succession, RecipeReplacement):
        return _shadow_bars(case.succession)
    if case.comparison is None or case.succession is not None:
        return 0.0
    return float(paired.MIN_DIFFERENCES - case.comparison.record.n)


def _shadow_bars(replacement: RecipeReplacement) -> float:
    """Shadow bars to come until a replacement is shown to be better at the present lead; without a lead,
    until the shortest comparison."""
    record = replacement.record
    leads = record.n > 0 and record.first + record.total / record.n > 0.0
    if leads and replacement.level is not None:
        decided = paired.differences_to_decide(record, replacement.level, TUNED_FOR)
        if math.isfinite(decided):
            return max(decided - record.n, 0.0) * replacement.bars_a_day
    return WARM_UP + max(paired.MIN_DIFFERENCES - record.n, 0) * replacement.bars_a_day
