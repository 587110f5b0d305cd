"""Retrains due at the limits, each of which the intake grants."""

from datetime import UTC, datetime, timedelta

import pytest

from clm_core.decisions.retraining import decide
from clm_core.decisions.staleness import Freshness, age_of, due_retrains
from clm_core.domain.actors import Actor
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.trigger_policy import TriggerPolicy
from clm_core.domain.triggers import History, Reply, TriggerRequest
from clm_core.domain.vocabulary import ModelType, Role, TriggerReason
from clm_core.market.newest_bars import NewestBar
from clm_core.market.timeframes import Calendar, Timeframe

NOW = datetime(2026, 3, 31, tzinfo=UTC)
POLICY = TriggerPolicy()
QUIET = History(running=None, pending=None, last_accepted={}, accepted={}, accepted_in_all=0, same_key=None)
STALE = TriggerReason.PERIODIC
NEW_BARS = TriggerReason.DATA_THRESHOLD


@pytest.mark.parametrize(
    ("age", "new_bars", "reasons"),
    [
        (timedelta(days=30), 99, []),
        (timedelta(days=30, seconds=1), 0, [STALE]),
        (timedelta(days=30, seconds=1), 5000, [STALE]),
        (timedelta(days=1), 100, [NEW_BARS]),
        (timedelta(), 0, []),
    ],
    ids=["neither", "stale", "stale with new bars", "new bars", "fresh"],
)
def test_a_model_is_due_when_the_intake_would_grant_the_retrain(
    age: timedelta, new_bars: int, reasons: list[TriggerReason]
) -> None:
    due = list(due_retrains([Freshness("xgboost_btcusd_1h", NOW - age, new_bars)], POLICY, NOW))
    assert [each.reason for each in due] == reasons
    for each in due:
        request = TriggerRequest(
            training=RetrainRequest(
                model_type=ModelType.XGBOOST, symbol="BTCUSD", trigger_reason=each.reason
            ),
            actor=Actor(name="watch", role=Role.OPERATOR),
            source="watch",
            observed=each.observed,
        )
        assert decide(request, QUIET, POLICY, NOW).reply is Reply.ACCEPTED


@pytest.mark.parametrize(
    ("tried_days_ago", "reasons"), [(29, []), (31, [STALE])], ids=["tried lately", "tried long ago"]
)
def test_a_model_is_stale_when_no_retrain_began_for_the_age_promoted_or_not(
    tried_days_ago: int, reasons: list[TriggerReason]
) -> None:
    tried = NOW - timedelta(days=tried_days_ago)
    freshness = Freshness("xgboost_btcusd_1h", NOW - timedelta(days=90), 5000, tried, unpromoted=9)
    assert [each.reason for each in due_retrains([freshness], POLICY, NOW)] == reasons


@pytest.mark.parametrize(("new_bars", "due"), [(399, False), (400, True)])
def test_new_bars_are_waited_for_twice_as_long_after_each_retrain_without_a_promotion(
    new_bars: int, due: bool
) -> None:
    freshness = Freshness("xgboost_btcusd_1h", NOW, new_bars, NOW, unpromoted=2)
    assert [each.reason for each in due_retrains([freshness], POLICY, NOW)] == ([NEW_BARS] if due else [])


@pytest.mark.parametrize(
    ("bar", "calendar", "hours_later", "late", "stale"),
    [
        ("1h", "24x7", 3.9, 2, False),
        ("1h", "24x7", 4.0, 3, True),
        ("1d", "24x7", 96, 3, True),
        ("5m", "24x7", 1.0, 11, False),
        ("5m", "24x7", 1.1, 12, True),
        ("1h", "24x5", 40, 0, False),
        ("1h", "24x5", 54, 3, True),
    ],
    ids=["two late", "three late", "days", "a late fetch", "an hour of short bars", "weekend", "monday"],
)
def test_a_market_is_stale_from_three_required_bars_and_an_hour_on(
    bar: str, calendar: str, hours_later: float, late: int, stale: bool
) -> None:
    friday = datetime(2024, 1, 5, 20, tzinfo=UTC)
    opened = friday if bar != "1d" else friday.replace(hour=0)
    newest = NewestBar("EURUSD", Timeframe(bar), Calendar(calendar), opened)
    age = age_of(newest, opened + timedelta(hours=hours_later), stale_bars=3)
    assert (age.late_bars, age.is_stale) == (late, stale)


def test_the_number_of_late_bars_of_a_stale_market_is_a_setting() -> None:
    opened = datetime(2024, 1, 5, 20, tzinfo=UTC)
    newest = NewestBar("BTCUSDT", Timeframe("1h"), Calendar("24x7"), opened)
    now = opened + timedelta(hours=6)
    assert [age_of(newest, now, stale_bars=limit).is_stale for limit in (5, 6)] == [True, False]
