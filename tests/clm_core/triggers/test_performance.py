"""What a record on new bars is worth, at the limits."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from clm_core.domain.triggers import Observation
from clm_core.domain.vocabulary import TriggerReason
from clm_core.triggers.freshness import Due
from clm_core.triggers.performance import Finding, Performance, WatchRules, due, judge

RULES, LIMIT = WatchRules(), 0.5
BAD: dict[str, Any] = {
    "bars": 240,
    "trades": 10,
    "sharpe_ratio": -3.0,
    "max_drawdown": -0.2,
    "confidence": 0.95,
}


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, Finding.DEGRADED),
        ({"confidence": 0.9}, Finding.DEGRADED),
        ({"confidence": 0.899}, Finding.UNSURE),
        ({"sharpe_ratio": 0.499}, Finding.DEGRADED),
        ({"sharpe_ratio": 0.5}, Finding.HOLDS),
        ({"sharpe_ratio": 4.0, "confidence": 0.01}, Finding.HOLDS),
        ({"bars": 239}, Finding.TOO_EARLY),
        ({"trades": 9}, Finding.TOO_EARLY),
        ({"bars": 0, "trades": 0, "sharpe_ratio": None, "confidence": None}, Finding.TOO_EARLY),
        ({"sharpe_ratio": None}, Finding.UNMEASURABLE),
        ({"confidence": None}, Finding.UNMEASURABLE),
    ],
    ids=[
        "bad beyond doubt",
        "just sure enough",
        "not quite sure",
        "just below the limit",
        "at the limit",
        "good",
        "a bar too few",
        "a trade too few",
        "no new bars",
        "no Sharpe ratio",
        "no confidence",
    ],
)
def test_only_what_is_bad_beyond_doubt_is_asked_to_be_retrained(
    changes: dict[str, Any], finding: Finding
) -> None:
    seen = Performance(**BAD | changes)
    found, because = judge(seen, RULES, LIMIT)
    assert found is finding
    assert because
    wanted = Observation(sharpe_ratio=seen.sharpe_ratio) if finding is Finding.DEGRADED else None
    assert [each.observed for each in due("a_model", seen, found)] == ([wanted] if wanted else [])


def test_the_door_is_told_the_reason_and_the_observed_sharpe_ratio() -> None:
    seen = Performance(**BAD)
    expected = Due("a_model", TriggerReason.PERFORMANCE_DEGRADED, Observation(sharpe_ratio=-3.0))
    assert list(due("a_model", seen, Finding.DEGRADED)) == [expected]


def test_where_half_a_chance_is_enough_the_observed_ratio_alone_decides() -> None:
    rules = WatchRules(confidence=0.5)
    assert judge(Performance(**BAD | {"sharpe_ratio": 0.4, "confidence": 0.51}), rules, LIMIT)[0] is (
        Finding.DEGRADED
    )


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_ratio_that_is_no_number_never_gets_as_far_as_a_finding(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Performance(**BAD | {"sharpe_ratio": value})
