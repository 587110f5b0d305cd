"""Timing checks: more than the same positions at other times earn, and more than the baselines together.

A miss is FAIL: holding the market, or following the trend, is refused however large the gain. An unmeasured
value is missing evidence.
"""

import math

from clm_core.decisions.cases import BaselineAlpha, Case
from clm_core.decisions.checks import limits
from clm_core.decisions.checks.limits import Reasoned
from clm_core.decisions.gate_policy import EvidenceLevels
from clm_core.domain.evaluations import CheckKind
from clm_core.evidence.exposure_null import MIN_SHIFTED, NO_TIMING

TIMING = "timing"
ALPHA = "alpha"
SIMPLER_RULES = {
    "buy_and_hold": "buying and holding does as well",
    "hold_at_volatility": "holding at the same volatility does as well",
    "trend": "a trend rule does as well",
}
"""Sentence for the baseline that explains the returns alone."""


def timing_checks(case: Case, levels: EvidenceLevels) -> tuple[Reasoned, ...]:
    timing = limits.at_least(TIMING, case.timing, levels.min_timing_probability, CheckKind.EVIDENCE)
    least = case.alpha.joint.at_least(levels.alpha_confidence)
    alpha = limits.at_least(ALPHA, least, 0.0, CheckKind.EVIDENCE)
    return (timing, _no_timing(case.timing, timing.limit)), (alpha, _no_alpha(case.alpha, least, levels))


def _no_timing(probability: float, required: float) -> str:
    if not math.isfinite(probability):
        return f"timing could not be measured: positions of at least {MIN_SHIFTED} bars are needed"
    if probability == NO_TIMING:
        return "the positions have no timing: they never vary, or do best at any other time"
    return (
        f"the same positions at other times do as well: they earn less than this at {probability:.1%} of all "
        f"shifts, and {required:.0%} are required"
    )


def _no_alpha(alpha: BaselineAlpha, least: float, levels: EvidenceLevels) -> str:
    if not math.isfinite(least):
        return "alpha could not be measured: too few days have returns of the version and of the baselines"
    sentence = SIMPLER_RULES.get(alpha.simpler_rule, "the three baselines together do as well")
    return (
        f"{sentence}: the alpha beyond the three baselines together is {alpha.joint.value:.1%} a year, and "
        f"not above zero with a confidence of {levels.alpha_confidence:.0%} (at least {least:.1%})"
    )
