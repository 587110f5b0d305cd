"""The promotion gate: measured results and a policy in, a verdict with every reason out.

Soundness and thresholds come first: a version that misses a single check FAILS, unless another check carries
the miss. Evidence follows: timing, alpha beyond the baselines, a Sharpe ratio above the trial luck of all
trials, and no worse return than the champion's on bars unseen by both. Missing evidence makes the verdict
INCONCLUSIVE, or FAIL where no number of bars at the measured rate would complete it. Every missed check has
one reason.
"""

import math
from collections.abc import Sequence

from clm_core.backtest.results import Metrics
from clm_core.decisions.cases import Case
from clm_core.decisions.checks import limits
from clm_core.decisions.checks.evidence import LEAD, evidence_checks, more_bars, never_decides, trial_luck
from clm_core.decisions.checks.limits import Reasoned
from clm_core.decisions.checks.overfitting import OVERFITTING, overfitting_checks
from clm_core.decisions.checks.soundness import soundness_checks
from clm_core.decisions.checks.succession import succession_checks
from clm_core.decisions.checks.thresholds import threshold_checks
from clm_core.decisions.checks.timing import ALPHA, TIMING, timing_checks
from clm_core.decisions.gate_policy import EvidenceLevels, GatePolicy
from clm_core.domain.evaluations import Check, CheckKind, CheckStatus, Decision, Verdict

MEASURED_REFUSES = (TIMING, ALPHA, LEAD)
"""Evidence whose miss is FAIL once it is measured."""
THRESHOLDS_ALONE = (
    "Judged by thresholds alone: versions without any edge pass them one time in five at 50 trades, and of "
    "twenty retrains one almost surely does."
)


def judge(case: Case, policy: GatePolicy) -> Verdict:
    """PASS, FAIL or INCONCLUSIVE, with every check and the reasons.

    A value that is missing, NaN or infinite fails its check, whatever the limit.
    """
    metrics = case.metrics
    evidence = () if policy.evidence is None else _evidence(case, policy.evidence)
    results = (*soundness_checks(case), *threshold_checks(case, policy), *evidence)
    checks = tuple(check for check, _ in results)
    decision = _decision(checks)
    # bars of the record say nothing of a search; they decide the other evidence
    awaits_bars = any(check.name != OVERFITTING for check in checks if check.status is CheckStatus.MISSED)
    undecided = decision is Decision.INCONCLUSIVE and awaits_bars
    if undecided and policy.evidence and never_decides(case, policy.evidence):
        decision = Decision.FAIL
        undecided = False
    return Verdict(
        decision=decision,
        score=_score(metrics, checks),
        checks=checks,
        reasons=tuple(reason for check, reason in results if check.status is CheckStatus.MISSED),
        policy=policy.name,
        policy_hash=policy.digest,
        luck=None if policy.evidence is None else trial_luck(case),
        more_bars=more_bars(case, policy.evidence) if undecided and policy.evidence else None,
        warnings=() if policy.evidence else (THRESHOLDS_ALONE,),
    )


def _evidence(case: Case, levels: EvidenceLevels) -> tuple[Reasoned, ...]:
    return (
        *timing_checks(case, levels),
        *evidence_checks(case, levels),
        *succession_checks(case),
        *overfitting_checks(case, levels),
    )


def _decision(checks: tuple[Check, ...]) -> Decision:
    missed = [check for check in checks if check.status is CheckStatus.MISSED]
    if any(_refuses(check) for check in missed):
        return Decision.FAIL
    return Decision.INCONCLUSIVE if missed else Decision.PASS


def _refuses(check: Check) -> bool:
    """True for a missed check that more evidence would not mend."""
    measured = math.isfinite(check.value)
    return check.kind is not CheckKind.EVIDENCE or (check.name in MEASURED_REFUSES and measured)


def _score(metrics: Metrics, checks: Sequence[Check]) -> float:
    """Promotion score; 0 for a version with a missed soundness check: a collapse must not lead a list."""
    if not all(check.passed for check in checks if check.kind is CheckKind.SOUNDNESS):
        return 0.0
    return promotion_score(metrics.sharpe_ratio, metrics.win_rate, metrics.profit_factor)


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
    if not limits.is_finite_number(value):
        return 0.0
    return min(max((value - zero) / (full - zero), 0.0), 1.0) * 100.0
