"""Which models are Freshness, due_retrainsat the limits; and that the door grants what is due."""

from datetime import UTC, datetime, timedelta

import pytest

from clm_core.decisions.retraining import TriggerPolicy, decide
from clm_core.decisions.staleness import Freshness, due_retrains
from clm_core.domain.actors import Actor
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.triggers import History, Reply, TriggerRequest
from clm_core.domain.vocabulary import ModelType, Role, TriggerReason

NOW = datetime(2026, 3, 31, tzinfo=UTC)
POLICY = TriggerPolicy()
QUIET = History(running=None, pending=None, last_accepted={}, accepted={}, accepted_in_all=0, same_key=None)
STALE, NEW_BARS = TriggerReason.PERIODIC, TriggerReason.DATA_THRESHOLD


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
def test_a_model_is_due_when_the_door_would_grant_it(
    age: timedelta, new_bars: int, reasons: list[TriggerReason]
) -> None:
    found = list(due_retrains([Freshness("xgboost_btcusd_1h", NOW - age, new_bars)], POLICY, NOW))
    assert [each.reason for each in found] == reasons
    for each in found:
        request = TriggerRequest(
            training=RetrainRequest(
                model_type=ModelType.XGBOOST, symbol="BTCUSD", trigger_reason=each.reason
            ),
            actor=Actor(name="watch", role=Role.OPERATOR),
            source="watch",
            observed=each.observed,
        )
        assert decide(request, QUIET, POLICY, NOW).reply is Reply.ACCEPTED
