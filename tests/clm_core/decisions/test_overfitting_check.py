"""Parameters chosen by a search must not be the luck of the search."""

import math
from dataclasses import replace

import pytest
from gate_cases import STRICT, check_of, trend_like

from clm_core.decisions import gate
from clm_core.domain.evaluations import CheckStatus, Decision
from clm_core.evidence.overfitting import SelectionRisk

NAME = "probability_of_overfitting"


def test_parameters_from_no_search_have_no_check() -> None:
    assert NAME not in [check.name for check in gate.judge(trend_like(), STRICT).checks]


@pytest.mark.parametrize(
    ("overfitting", "loss", "decision", "status"),
    [
        (0.1, 0.3, Decision.PASS, CheckStatus.MET),
        (0.5, 0.01, Decision.PASS, CheckStatus.CARRIED),
        (0.5, 0.3, Decision.INCONCLUSIVE, CheckStatus.MISSED),
        (math.nan, math.nan, Decision.INCONCLUSIVE, CheckStatus.MISSED),
    ],
    ids=["a clear best", "equally good candidates", "chosen by luck", "not measured"],
)
def test_a_search_is_judged_by_overfitting_or_by_the_loss_of_its_choice(
    overfitting: float, loss: float, decision: Decision, status: CheckStatus
) -> None:
    case = replace(trend_like(), selection=SelectionRisk(20, 700, overfitting, loss))
    verdict = gate.judge(case, STRICT)
    assert verdict.decision is decision
    assert check_of(verdict, NAME).status is status
    assert len(verdict.reasons) == len(verdict.missed) == (status is CheckStatus.MISSED)
    assert verdict.more_bars is None


def test_a_missed_check_names_candidates_days_and_loss() -> None:
    case = replace(trend_like(), selection=SelectionRisk(20, 700, 0.5, 0.3))
    assert gate.judge(case, STRICT).reasons == (
        "probability of overfitting 50.0% is above the allowed 20.0%: chosen on half of the 700 days, the "
        "best of 20 candidates of the search loses on the other half in 30.0% of the splits",
    )
