"""Soundness checks: a ruined or collapsed version is refused whatever the result.

The walk-forward shows the activity of the recipe. The registered model is fitted on all bars and has checks
of the model alone: `bundle_activity` and `skill`.
"""

import math

from clm_core.decisions.cases import Case
from clm_core.decisions.checks import limits
from clm_core.decisions.checks.limits import Reasoned
from clm_core.domain.evaluations import Check, CheckKind
from clm_core.evidence.soundness import MAX_SHARE_OF_ONE_SIDE, MIN_POSITION_DEVIATION, Skill
from clm_core.models.activity import MIN_ACTIVE_SHARE, BundleActivity

RUINED = "ruined: the losses took all the capital within the test, equity reached 0"


def soundness_checks(case: Case) -> tuple[Reasoned, ...]:
    activity = case.activity
    ruined = limits.at_most("ruined", _ruined(case.metrics.max_drawdown), 0.0, CheckKind.SOUNDNESS)
    share = limits.at_most("share_of_one_side", activity.share, MAX_SHARE_OF_ONE_SIDE, CheckKind.SOUNDNESS)
    deviation = limits.at_least(
        "position_deviation", activity.deviation, MIN_POSITION_DEVIATION, CheckKind.SOUNDNESS
    )
    return (
        (ruined, RUINED if ruined.value == 1.0 else limits.refusal(ruined)),
        (share, _collapsed(share, f"{share.measured} of its positions are {activity.commonest_side}")),
        (deviation, _collapsed(deviation, f"its positions vary by {deviation.measured}, hardly at all")),
        *_of_bundle(case.bundle),
        *_of_skill(case.skill),
    )


def _collapsed(check: Check, sentence: str) -> str:
    return f"collapsed: {sentence if math.isfinite(check.value) else limits.refusal(check)}"


def _of_bundle(activity: BundleActivity | None) -> tuple[Reasoned, ...]:
    if activity is None:
        return ()
    check = limits.at_least("bundle_activity", activity.active_share, MIN_ACTIVE_SHARE, CheckKind.SOUNDNESS)
    return ((check, f"collapsed: {activity.problem}"),)


def _of_skill(skill: Skill | None) -> tuple[Reasoned, ...]:
    """Check that the forecast is not proven worse than a constant; none for a skill without a known error."""
    if skill is None or not skill.measured:
        return ()
    check = limits.at_least("skill", skill.value, skill.least, CheckKind.SOUNDNESS)
    return ((check, skill.problem or limits.refusal(check)),)


def _ruined(max_drawdown: float) -> float:
    """1.0 if equity reached 0, 0.0 if not, NaN without a usable drawdown."""
    return float(max_drawdown <= -1.0) if limits.is_finite_number(max_drawdown) else math.nan
