"""Overfitting check: the choice of the parameters by a tuning or an evolution.

A set of equally good candidates has no best one to find, and a probability of overfitting of one half; the
choice is sound all the same if the chosen candidate hardly ever loses in the other half. The probability of a
loss therefore carries a missed probability of overfitting.
"""

import math

from clm_core.decisions.cases import Case
from clm_core.decisions.checks import limits
from clm_core.decisions.checks.limits import Reasoned
from clm_core.decisions.gate_policy import EvidenceLevels
from clm_core.domain import measures
from clm_core.domain.evaluations import CheckKind
from clm_core.evidence.overfitting import MIN_ROWS, SelectionRisk

OVERFITTING = "probability_of_overfitting"


def overfitting_checks(case: Case, levels: EvidenceLevels) -> tuple[Reasoned, ...]:
    """Checks of the search behind the version's parameters; none for parameters from no search."""
    risk = case.selection
    if risk is None:
        return ()
    overfit = limits.at_most(OVERFITTING, risk.overfitting, levels.max_overfitting, CheckKind.EVIDENCE)
    loss = limits.at_most("probability_of_loss", risk.loss, levels.max_selection_loss, CheckKind.EVIDENCE)
    carries = loss.passed and not overfit.passed
    if carries:
        overfit = overfit.model_copy(update={"carried_by": loss.name})
    loss = loss.model_copy(update={"decides": carries})
    return (overfit, _reason(risk, limits.refusal(overfit))), (loss, limits.refusal(loss))


def _reason(risk: SelectionRisk, refusal: str) -> str:
    if not math.isfinite(risk.overfitting):
        return (
            f"{refusal}: the {risk.candidates:,} candidates of the search share {risk.days:,} days, "
            f"{MIN_ROWS} are needed"
        )
    return (
        f"{refusal}: chosen on half of the {risk.days:,} days, the best of {risk.candidates:,} candidates of "
        f"the search loses on the other half in {measures.percent(risk.loss)} of the splits"
    )
