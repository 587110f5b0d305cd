"""Soundness checks: a ruined or collapsed version is refused whatever the result."""

import math

from clm_core.decisions.cases import Case
from clm_core.decisions.checks import limits
from clm_core.decisions.checks.limits import Reasoned
from clm_core.domain.evaluations import CheckKind
from clm_core.evidence.soundness import MAX_SHARE_OF_ONE_SIDE, MIN_POSITION_DEVIATION

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
        (share, f"collapsed: {activity.share:.1%} of its positions are {activity.commonest_side}"),
        (deviation, f"collapsed: its positions vary by {activity.deviation:.2g}, hardly at all"),
    )


def _ruined(max_drawdown: float) -> float:
    """1.0 if equity reached 0, 0.0 if not, NaN without a usable drawdown."""
    return float(max_drawdown <= -1.0) if limits.is_finite_number(max_drawdown) else math.nan
