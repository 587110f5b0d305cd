"""Findings on the performance on new bars, at the limits."""

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from clm_core.decisions.health import (
    HealthFinding,
    Performance,
    confidence_below,
    due_retrains,
    judge,
)
from clm_core.decisions.staleness import DueRetrain
from clm_core.domain.triggers import Observation
from clm_core.domain.vocabulary import TriggerReason
from clm_core.domain.watch_rules import WatchRules
from clm_core.market.drift import Drift

RULES = WatchRules()
LIMIT = 0.5
YEAR = 8760.0
"""Hours."""
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
        ({}, HealthFinding.DEGRADED),
        ({"confidence": 0.9}, HealthFinding.DEGRADED),
        ({"confidence": 0.899}, HealthFinding.UNSURE),
        ({"sharpe_ratio": 0.499}, HealthFinding.DEGRADED),
        ({"sharpe_ratio": 0.5}, HealthFinding.HOLDS),
        ({"sharpe_ratio": 4.0, "confidence": 0.01}, HealthFinding.HOLDS),
        ({"bars": 239}, HealthFinding.TOO_EARLY),
        ({"trades": 9}, HealthFinding.TOO_EARLY),
        ({"bars": 0, "trades": 0, "sharpe_ratio": None, "confidence": None}, HealthFinding.TOO_EARLY),
        ({"sharpe_ratio": None}, HealthFinding.UNMEASURABLE),
        ({"confidence": None}, HealthFinding.UNMEASURABLE),
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
def test_only_a_certainly_degraded_model_is_due_for_a_retrain(
    changes: dict[str, Any], finding: HealthFinding
) -> None:
    seen = Performance(**BAD | changes)
    judged, because = judge(seen, RULES, LIMIT)
    assert judged is finding
    assert because
    observation = Observation(sharpe_ratio=seen.sharpe_ratio) if finding is HealthFinding.DEGRADED else None
    assert [each.observed for each in due_retrains("a_model", seen, judged, None, RULES)] == (
        [observation] if observation else []
    )


def test_a_due_retrain_carries_the_reason_and_the_observed_sharpe_ratio() -> None:
    seen = Performance(**BAD)
    expected = DueRetrain("a_model", TriggerReason.PERFORMANCE_DEGRADED, Observation(sharpe_ratio=-3.0))
    assert list(due_retrains("a_model", seen, HealthFinding.DEGRADED, None, RULES)) == [expected]


@pytest.mark.parametrize(
    ("drift", "requested"),
    [(None, False), (1.25, False), (1.26, True)],
    ids=["not measured", "at the limit", "above it"],
)
def test_drift_above_the_limit_is_due_for_a_retrain(drift: float | None, requested: bool) -> None:
    measured = None if drift is None else Drift(score=drift, features=("atr_14",), stretches=26)
    expected = [DueRetrain("a_model", TriggerReason.DRIFT_DETECTED, Observation())] if requested else []
    assert list(due_retrains("a_model", Performance(), HealthFinding.TOO_EARLY, measured, RULES)) == expected


def test_at_a_confidence_of_one_half_the_observed_ratio_alone_decides() -> None:
    rules = WatchRules(confidence=0.5)
    assert judge(Performance(**BAD | {"sharpe_ratio": 0.4, "confidence": 0.51}), rules, LIMIT)[0] is (
        HealthFinding.DEGRADED
    )


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_ratio_that_is_not_a_number_is_refused_before_the_finding(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Performance(**BAD | {"sharpe_ratio": value})


@pytest.mark.parametrize(
    ("worth", "confidence", "min_share", "max_share"),
    [(1.0, 0.9, 0.1, 0.4), (1.0, 0.5, 0.6, 1.0), (-3.0, 0.9, 0.6, 1.0)],
    ids=["a good model", "a good model, by the observed ratio alone", "a bad model"],
)
def test_90_daily_looks_find_a_bad_model_more_often_than_a_good_model(
    worth: float, confidence: float, min_share: float, max_share: float
) -> None:
    detected = [day is not None for day in (first_detection(worth, confidence, seed) for seed in range(40))]
    assert min_share <= np.mean(detected) <= max_share


def first_detection(worth: float, confidence: float, seed: int) -> int | None:
    """The day on which hourly returns of this Sharpe ratio, with fat tails, are first called degraded."""
    noise = np.random.default_rng(seed).standard_t(4, size=90 * 24) / math.sqrt(2)
    returns = 0.005 * (noise + worth / math.sqrt(YEAR))
    days = (RULES.min_bars // 24 + day for day in range(81))
    return next(
        (day for day in days if confidence_below(returns[: day * 24], LIMIT, YEAR) >= confidence), None
    )
