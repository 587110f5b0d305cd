"""Checks of the kind of change: a refresh of the champion's recipe, or its replacement by another.

The walk-forward of a recipe has tested refreshing already. A refresh therefore has to behave like the
champion: both agree in positions as much as consecutive folds of the recipe do. Another recipe has to show in
shadow a higher return than the champion's at equal volatility, by the bounds of `shadow_decision`.
"""

import math

from clm_core.decisions.cases import Case, RecipeRefresh, RecipeReplacement
from clm_core.decisions.checks import limits
from clm_core.decisions.checks.limits import Reasoned
from clm_core.decisions.shadow_decision import lead_bounds
from clm_core.domain.evaluations import CheckKind
from clm_core.evidence import paired
from clm_core.evidence.equal_volatility import WARM_UP

AGREEMENT = "agreement_with_champion"
SHADOW_LEAD = "shadow_lead_bps"
TOLERANCE = 0.1
"""Rank correlation by which a refresh may agree less than the least agreeing pair of consecutive folds."""


def succession_checks(case: Case) -> tuple[Reasoned, ...]:
    match case.succession:
        case RecipeRefresh():
            return (_agreement(case.succession),)
        case RecipeReplacement():
            return (_shadow_lead(case.succession),)
    return ()


def _agreement(refresh: RecipeRefresh) -> Reasoned:
    least = refresh.agreement_of_folds - TOLERANCE
    check = limits.at_least(AGREEMENT, refresh.agreement, least, CheckKind.EVIDENCE)
    if not math.isfinite(least):
        return check, (
            "the agreement of consecutive folds of the recipe was not measured, and the refresh cannot be "
            f"compared with champion {refresh.champion}: retrain, with at least two folds"
        )
    if not math.isfinite(refresh.agreement):
        return check, (
            f"the agreement of the refresh with champion {refresh.champion} could not be measured: "
            f"{refresh.problem or 'positions of one of them never vary'}"
        )
    return check, (
        f"the refresh agrees with champion {refresh.champion} less than the recipe agrees with itself: rank "
        f"correlation of the positions {refresh.agreement:.2f}, lowest of consecutive folds "
        f"{refresh.agreement_of_folds:.2f}"
    )


def _shadow_lead(replacement: RecipeReplacement) -> Reasoned:
    """Check of the lower bound of the lead in shadow; a version proven worse fails."""
    record = replacement.record
    low, high = lead_bounds(record, replacement.level)
    kind = CheckKind.THRESHOLD if high < 0.0 else CheckKind.EVIDENCE
    check = limits.at_least(SHADOW_LEAD, low * 1e4, 0.0, kind)
    subject = (
        f"another recipe than that of champion {replacement.champion} has to show in shadow that it earns "
        "more at equal volatility"
    )
    if replacement.level is None:
        return check, f"{subject}: the shadow pass has not given the recipe a level yet (`clm shadow`)"
    if not math.isfinite(low):
        return check, (
            f"{subject}: {record.n:,} common days are recorded, a comparison takes at least "
            f"{paired.MIN_DIFFERENCES} after the first {WARM_UP} bars (`clm shadow`)"
        )
    return check, (
        f"{subject}: the lead lies between {low * 1e4:.2f} bps a day, at the level of "
        f"{100 * replacement.level:.2g} % of the recipe, and {high * 1e4:.2f} over {record.n:,} common days"
    )
