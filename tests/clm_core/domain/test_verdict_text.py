"""Verdicts as text: one name, number format, order and count for each check."""

import math
from typing import Any

import pytest

from clm_core.domain import measures, verdict_text
from clm_core.domain.evaluations import Check, CheckStatus, Decision, Verdict


def check(name: str = "win_rate", **changes: Any) -> Check:
    values: dict[str, Any] = {
        "name": name,
        "value": 0.43,
        "limit": 0.52,
        "comparison": ">=",
        "passed": False,
        "margin": -0.09,
    }
    return Check(**values | changes)


CARRIED = check(carried_by="expectancy")
INFORMING = check("track_record_bars", value=100.0, limit=math.inf, decides=False)
MET = check("sharpe_ratio", value=1.45, limit=1.0, passed=True, low=0.2, high=2.7)
MISSED = check("max_drawdown", value=math.nan, limit=0.15, comparison="<=", margin=math.nan)


def verdict(*checks: Check, decision: Decision = Decision.FAIL, reasons: tuple[str, ...] = ()) -> Verdict:
    return Verdict(decision=decision, score=0.0, checks=checks, reasons=reasons)


@pytest.mark.parametrize(
    ("each", "cells"),
    [
        (CARRIED, ("win rate", "43.0%", "≥ 52.0%", "✗ missed, carried by expectancy of a trade")),
        (INFORMING, ("track record, bars", "100", "never", "for information")),
        (MET, ("Sharpe ratio", "1.45 (0.20 to 2.70)", "≥ 1.00", "✓ met")),
        (MISSED, ("max drawdown", "not measured", "≤ 15.0%", "✗ missed")),
        (
            check("new_check", value=1234.5678, limit=2.0, note="of a new family"),
            ("new check", "1,235, of a new family", "≥ 2", "✗ missed"),
        ),
        (check("ruined", value=1.0, limit=0.0, comparison="<="), ("ruined", "yes", "no", "✗ missed")),
    ],
    ids=["carried", "information", "met", "not measured", "unknown name", "fact"],
)
def test_a_check_has_the_same_cells_everywhere(each: Check, cells: tuple[str, ...]) -> None:
    assert each.cells == cells


def test_the_count_is_of_the_deciding_checks_and_their_misses() -> None:
    assert (
        verdict(CARRIED, INFORMING, MET, MISSED).headline
        == "FAIL: 1 of 3 checks missed, 1 missed but carried"
    )
    passed = verdict(CARRIED, INFORMING, MET, decision=Decision.PASS)
    assert passed.headline == "PASS: 1 of 2 checks met, 1 missed but carried"
    assert [each.status for each in passed.checks] == [
        CheckStatus.CARRIED,
        CheckStatus.INFORMATION,
        CheckStatus.MET,
    ]


def test_a_value_just_off_its_limit_does_not_read_like_the_limit() -> None:
    near = math.nextafter(0.52, 0.0)
    assert measures.apart("win_rate", near, 0.52).startswith("51.9999")
    assert measures.apart("win_rate", 0.52, 0.52) == "52.0%"


def test_the_description_of_a_version_keeps_its_verdict_through_later_changes_of_status() -> None:
    given = verdict(MISSED, reasons=("max drawdown could not be measured",))
    described = verdict_text.description(given)
    assert described.startswith("### Verdict FAIL: 1 of 1 checks missed\n\n- max drawdown could not")
    assert "| max drawdown | not measured | ≤ 15.0% | ✗ missed |" in described
    promoted = verdict_text.status_description("forced by ada: a parent", described)
    assert promoted == f"forced by ada: a parent\n\n{described}"
    retired = verdict_text.status_description("replaced by v2", promoted)
    assert retired == f"replaced by v2\n\n{described}"
    assert verdict_text.status_description("replaced", "a note of before") == "replaced"


def test_a_verdict_of_before_is_read_as_it_is() -> None:
    stored = {
        "decision": "fail",
        "score": 1.0,
        "legs": [
            {
                "name": "track_record_bars",
                "kind": "evidence",
                "value": 5.0,
                "limit": 9.0,
                "comparison": ">=",
                "passed": False,
                "margin": -4.0,
            }
        ],
        "reasons": ["track record of 5 bars is too short"],
    }
    read = Verdict.model_validate(stored)
    assert read.checks[0].status is CheckStatus.MISSED
    assert read.checks[0].cells == ("track record, bars", "5", "≥ 9", "✗ missed")


def test_json_carries_the_texts_of_a_check_and_no_nan() -> None:
    document = verdict(MISSED).model_dump(mode="json")
    shown = document["checks"][0]
    assert (shown["label"], shown["measured"], shown["required"], shown["status"]) == (
        "max drawdown",
        "not measured",
        "≤ 15.0%",
        "missed",
    )
    assert "NaN" not in verdict(MISSED).model_dump_json()
    assert Verdict.model_validate(document | {"checks": [shown | {"value": 0.1, "margin": 0.0}]}).headline
