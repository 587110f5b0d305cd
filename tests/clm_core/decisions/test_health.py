"""Findings on the performance on new bars, at the limits."""

import math
import re
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from clm_core.decisions.health import (
    FORECAST_ERRORS,
    Alarm,
    DriftFindings,
    HealthFinding,
    Performance,
    alarm_of,
    due_retrains,
    judge,
)
from clm_core.decisions.staleness import DueRetrain
from clm_core.domain.drift_history import PREDICTION
from clm_core.domain.errors import DeprecatedSetting
from clm_core.domain.triggers import Observation
from clm_core.domain.vocabulary import TriggerReason
from clm_core.domain.watch_rules import WatchRules
from clm_core.evidence.forecast_errors import ErrorDrift
from clm_core.evidence.sequential import FIRST_LOOK
from clm_core.market.drift import Drift

RULES = WatchRules()
LIMIT = 0.5
WINDOW = 90 * 24
"""Hourly bars within 90 days."""
QUIET = Alarm(days=40, statistic=2.0)
RAISED = Alarm(days=40, statistic=1.0, raised_on_day=33)
BAD: dict[str, Any] = {
    "bars": 240,
    "trades": 10,
    "sharpe_ratio": -3.0,
    "max_drawdown": -0.2,
    "alarm": RAISED,
}


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, HealthFinding.DEGRADED),
        ({"sharpe_ratio": 0.7}, HealthFinding.DEGRADED),
        ({"bars": 10, "trades": 0}, HealthFinding.DEGRADED),
        ({"alarm": QUIET}, HealthFinding.UNSURE),
        ({"alarm": Alarm(days=10)}, HealthFinding.UNSURE),
        ({"alarm": QUIET, "sharpe_ratio": 0.5}, HealthFinding.HOLDS),
        ({"alarm": QUIET, "bars": 239}, HealthFinding.TOO_EARLY),
        ({"alarm": QUIET, "trades": 9}, HealthFinding.TOO_EARLY),
        ({"alarm": QUIET, "sharpe_ratio": None}, HealthFinding.UNMEASURABLE),
    ],
    ids=[
        "alarm",
        "alarm, and a ratio above the limit since",
        "alarm, in spite of few trades",
        "below the limit without an alarm",
        "before the first look",
        "at the limit",
        "a bar too few",
        "a trade too few",
        "no Sharpe ratio",
    ],
)
def test_only_the_alarm_of_the_sequential_test_is_due_for_a_retrain(
    changes: dict[str, Any], finding: HealthFinding
) -> None:
    seen = Performance(**BAD | changes)
    judged, because = judge(seen, RULES, LIMIT, WINDOW)
    assert judged is finding
    assert because
    observed = Observation(sharpe_ratio=seen.sharpe_ratio, alarm=True)
    expected = [observed] if finding is HealthFinding.DEGRADED else []
    assert [
        each.observed for each in due_retrains("a_model", seen, judged, DriftFindings(), RULES)
    ] == expected


def test_an_alarm_names_its_day_and_a_low_ratio_without_one_names_the_statistic() -> None:
    assert "raised its alarm on day 33 of 40" in judge(Performance(**BAD), RULES, LIMIT, WINDOW)[1]
    assert judge(Performance(**BAD | {"alarm": QUIET}), RULES, LIMIT, WINDOW)[1] == (
        "Sharpe ratio -3.00 is below 0.5, and chance may explain it: the sequential test stands at 2.0 of 5.4"
    )


@pytest.mark.parametrize(
    ("bars", "window", "finding", "needed"),
    [
        (89, 90, HealthFinding.TOO_EARLY, "90 and 10"),
        (90, 90, HealthFinding.UNSURE, ""),
        (13, 13, HealthFinding.TOO_EARLY, "20 and 10"),
    ],
    ids=["a bar of the window is older", "a window of daily bars", "a window of weekly bars"],
)
def test_bars_as_many_as_the_window_holds_are_enough(
    bars: int, window: int, finding: HealthFinding, needed: str
) -> None:
    seen = Performance(**BAD | {"alarm": QUIET, "bars": bars})
    judged, because = judge(seen, RULES, LIMIT, window)
    assert judged is finding
    assert needed in because


def test_the_alarm_stands_after_the_returns_have_recovered() -> None:
    daily = np.r_[np.full(40, -0.01), np.full(400, 0.01)]
    alarm = alarm_of(daily, 365.25)
    assert alarm.raised_on_day is not None
    assert FIRST_LOOK <= alarm.raised_on_day <= 40
    assert (alarm.days, alarm.statistic) == (440, 0.0)


@pytest.mark.parametrize(("days", "in_a_year"), [(19, 365.25), (100, math.nan)])
def test_before_the_first_look_there_is_no_statistic(days: int, in_a_year: float) -> None:
    assert alarm_of(np.full(days, -0.01), in_a_year) == Alarm(days=days)


def drift_of(score: float, *names: str) -> Drift:
    return Drift(score=score, features=names, stretches=26)


def errors_changed_at(row: int | None) -> ErrorDrift:
    since = None if row is None else 0.2
    return ErrorDrift(observations=90, changed_at=row, mean_before=0.0, mean_since=since)


@pytest.mark.parametrize(
    ("drifts", "observed"),
    [
        (DriftFindings(), None),
        (DriftFindings(drift_of(1.25, "atr_14"), drift_of(1.25, PREDICTION), errors_changed_at(None)), None),
        (DriftFindings(drift_of(1.26, "atr_14")), Observation(drift_score=1.26, drifted=("atr_14",))),
        (
            DriftFindings(drift_of(1.1, "atr_14"), drift_of(1.3, PREDICTION)),
            Observation(drift_score=1.3, drifted=(PREDICTION,)),
        ),
        (DriftFindings(errors=errors_changed_at(61)), Observation(drifted=(FORECAST_ERRORS,))),
    ],
    ids=["not measured", "at the limits", "features", "predictions", "forecast errors"],
)
def test_drift_above_the_limit_is_due_for_a_retrain_with_the_evidence(
    drifts: DriftFindings, observed: Observation | None
) -> None:
    expected = [] if observed is None else [DueRetrain("a_model", TriggerReason.DRIFT_DETECTED, observed)]
    assert list(due_retrains("a_model", Performance(), HealthFinding.TOO_EARLY, drifts, RULES)) == expected


def test_the_former_confidence_is_accepted_with_a_warning() -> None:
    with pytest.warns(DeprecatedSetting, match=re.escape("watch.confidence has no effect any more")):
        assert WatchRules(confidence=0.9).min_bars == RULES.min_bars


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_ratio_that_is_not_a_number_is_refused_before_the_finding(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Performance(**BAD | {"sharpe_ratio": value})


def test_an_alarm_of_an_earlier_version_was_answered_and_the_test_starts_anew() -> None:
    losing = np.full(60, -0.01)
    alone = alarm_of(losing, 365.25)
    assert alone.raised_on_day is not None
    # with all the days those of earlier versions, no alarm stands
    assert alarm_of(losing, 365.25, earlier_days=60).raised_on_day is None
    # evidence short of an alarm goes on to count
    short = alone.raised_on_day - 1
    assert alarm_of(losing, 365.25, earlier_days=short) == alone.model_copy(update={"earlier_days": short})
    # after the answered alarm, the statistic takes as many days again
    next_alarm = alarm_of(losing, 365.25, earlier_days=alone.raised_on_day).raised_on_day
    assert next_alarm == 2 * alone.raised_on_day
