"""A refresh agrees with the champion as its folds agree, a replacement shows its lead in shadow."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clm_core.backtest.results import Metrics
from clm_core.decisions import gate
from clm_core.decisions.cases import Case, Comparison, RecipeRefresh, RecipeReplacement
from clm_core.decisions.checks.evidence import LEAD
from clm_core.decisions.checks.succession import AGREEMENT, SHADOW_LEAD, succession_checks
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.evaluations import Check, CheckKind
from clm_core.evidence import paired
from clm_core.evidence.soundness import Activity
from clm_core.evidence.track_record import track_record
from clm_core.evidence.trials import TrialCount

CHAMPION = "v20250101_000000"
STRICT = GatePolicy(name="strict")
METRICS = Metrics(*(0.0 for _ in range(9)), trades=0, exposure=0.0, turnover=0.0)


def case(succession: RecipeRefresh | RecipeReplacement | None, common: int = 0) -> Case:
    returns = np.resize([0.011, -0.01], 2000)
    differences = paired.extend(paired.PairedRecord(), returns[:common], np.zeros(common))
    return Case(
        METRICS,
        Activity("long", 0.5, 0.9),
        track_record(returns),
        TrialCount(10, 10.0, 0.0),
        8760.0,
        Comparison(CHAMPION, differences),
        succession=succession,
    )


def shadowed(lead: float, days: int, level: float | None = 0.03) -> RecipeReplacement:
    noise = np.resize([0.001, -0.001, 0.0005], days)
    noise = noise - noise.mean()
    record = paired.extend(paired.PairedRecord(), noise + lead, np.zeros(days))
    return RecipeReplacement(CHAMPION, record, level)


def checked(succession: RecipeRefresh | RecipeReplacement | None, **changes: Any) -> tuple[Check, str]:
    [result] = succession_checks(replace(case(succession), **changes))
    return result


@pytest.mark.parametrize(
    ("agreement", "of_folds", "passed", "reason"),
    [
        (0.71, 0.8, True, ""),
        (0.70, 0.8, True, ""),
        (0.69, 0.8, False, "agrees with champion v20250101_000000 less than the recipe agrees with itself"),
        (math.nan, 0.8, False, "could not be measured: positions of one of them never vary"),
        (0.99, math.nan, False, "agreement of consecutive folds of the recipe was not measured"),
    ],
    ids=["above", "at the limit", "below", "no agreement", "no folds"],
)
def test_a_refresh_agrees_with_the_champion_as_its_folds_agree_less_a_tenth(
    agreement: float, of_folds: float, passed: bool, reason: str
) -> None:
    # 0.8 - 0.1 is 0.7000000000000001 in binary
    check, why = checked(RecipeRefresh(CHAMPION, agreement + 1e-12, of_folds))
    assert (check.name, check.kind, check.passed) == (AGREEMENT, CheckKind.EVIDENCE, passed)
    assert reason in why


def test_a_refresh_that_does_not_load_is_named() -> None:
    _, why = checked(RecipeRefresh(CHAMPION, math.nan, 0.8, "the bundle was changed"))
    assert "could not be measured: the bundle was changed" in why


@pytest.mark.parametrize(
    ("succession", "passed", "kind", "reason"),
    [
        (shadowed(0.001, 2000), True, CheckKind.EVIDENCE, ""),
        (shadowed(0.0, 2000), False, CheckKind.EVIDENCE, "the lead lies between -"),
        (shadowed(-0.001, 2000), False, CheckKind.THRESHOLD, "the lead lies between -"),
        (shadowed(0.001, 10), False, CheckKind.EVIDENCE, "10 common days are recorded"),
        (shadowed(0.001, 2000, None), False, CheckKind.EVIDENCE, "has not given the recipe a level yet"),
    ],
    ids=["better", "undecided", "worse", "too few", "no level"],
)
def test_a_replacement_shows_its_lead_in_shadow_and_fails_where_it_is_proven_worse(
    succession: RecipeReplacement, passed: bool, kind: CheckKind, reason: str
) -> None:
    check, why = checked(succession)
    assert (check.name, check.kind, check.passed) == (SHADOW_LEAD, kind, passed)
    assert reason in why


@pytest.mark.parametrize("succession", [None, RecipeReplacement(CHAMPION, paired.PairedRecord())])
def test_a_comparison_that_cannot_be_made_refuses_every_kind_of_change(
    succession: RecipeReplacement | None,
) -> None:
    unknown = Comparison(CHAMPION, paired.PairedRecord(), "the bundle is lost")
    verdict = gate.judge(replace(case(succession), comparison=unknown), STRICT)
    assert LEAD in {check.name for check in verdict.missed}
    assert any(
        f"cannot be compared with champion {CHAMPION}: the bundle is" in each for each in verdict.reasons
    )


def test_without_another_version_in_production_nothing_is_asked() -> None:
    assert succession_checks(case(None)) == ()


@pytest.mark.parametrize(
    ("succession", "common", "expected"),
    [
        (None, 0, True),
        (RecipeRefresh(CHAMPION, 0.9, 0.9), 0, False),
        (RecipeReplacement(CHAMPION, paired.PairedRecord()), 0, False),
        (RecipeRefresh(CHAMPION, 0.9, 0.9), 400, True),
        (RecipeReplacement(CHAMPION, paired.PairedRecord()), 400, True),
    ],
)
def test_a_refresh_is_not_held_up_by_too_few_bars_that_are_new_to_both(
    succession: RecipeRefresh | RecipeReplacement | None, common: int, expected: bool
) -> None:
    names = [check.name for check in gate.judge(case(succession, common), STRICT).checks]
    assert (LEAD in names) is expected
