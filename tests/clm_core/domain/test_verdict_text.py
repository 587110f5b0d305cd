"""Verdicts as text: one name, number format, order and count for each check."""

import math
from datetime import UTC, datetime, timedelta
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


JUDGED_AT = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def test_the_description_of_a_version_begins_with_its_verdict_and_ends_with_its_history() -> None:
    given = verdict(MISSED, reasons=("max drawdown could not be measured",))
    described = verdict_text.description(given)
    assert described.startswith("FAIL: 1 of 1 checks missed\n\n- max drawdown could not")
    assert "| max drawdown | not measured | ≤ 15.0% | ✗ missed |" in described
    judged = verdict_text.with_status(described, "failed", given.headline, JUDGED_AT)
    promoted = verdict_text.with_status(judged, "production", "forced by ada:\na parent", JUDGED_AT + DAY)
    assert promoted == (
        f"{described}\n\n### History\n\n"
        "- 2026-03-04 12:30 UTC, failed: FAIL: 1 of 1 checks missed\n"
        "- 2026-03-05 12:30 UTC, production: forced by ada: a parent"
    )
    again = verdict_text.with_status(promoted, "production", "forced by ada:\na parent", JUDGED_AT + 2 * DAY)
    assert again == promoted, "an interrupted promotion is finished and shown once"


def test_a_description_of_an_earlier_release_keeps_its_verdict_and_a_note_of_a_person_stays() -> None:
    before = "forced by ada: a parent\n\n### Verdict FAIL: 1 of 1 checks missed\n\n- too few trades"
    retired = verdict_text.with_status(before, "retired", "replaced by v2", JUDGED_AT)
    assert retired == (
        "FAIL: 1 of 1 checks missed\n\n- too few trades\n\n### History\n\n"
        "- forced by ada: a parent\n- 2026-03-04 12:30 UTC, retired: replaced by v2"
    )
    noted = verdict_text.with_status("seen by ada", "retired", "replaced by v2", JUDGED_AT)
    assert noted.startswith("seen by ada\n\n### History\n\n- 2026-03-04")


def test_a_description_stays_within_the_limit_of_mlflow() -> None:
    long = verdict(MISSED, reasons=("x" * 3000, "y" * 3000))
    described = verdict_text.description(long)
    for number in range(100):
        described = verdict_text.with_status(described, "retired", f"reason {number} {'z' * 200}", JUDGED_AT)
    described = verdict_text.with_status(described, "failed", "w" * 10_000, JUDGED_AT)
    assert len(described) <= verdict_text.MAX_DESCRIPTION
    assert described.startswith("FAIL: 1 of 1 checks missed")
    assert "failed: www" in described.splitlines()[-1]
