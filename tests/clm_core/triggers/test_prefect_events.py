"""Events emitted to a real Prefect server are submitted once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from installations import wait_until
from prefect.settings import PREFECT_API_URL, temporary_settings

from clm_core.domain.triggers import Reply
from clm_core.platform.prefect_runs import MAX_EVENTS_PAGE
from clm_core.services import Services
from clm_core.triggers import inbox, prefect_events
from clm_core.triggers.dispatch import answer_messages, dispatch_pending

GOOD = {"model_type": "lightgbm", "symbol": "BTCUSD", "sharpe_ratio": 0.7}
"""Event without need to retrain: other tests that collect the event get no job."""


@pytest.fixture
def prefect(prefect_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=prefect_url) as client, temporary_settings({PREFECT_API_URL: prefect_url}):
        yield client


def emit(
    prefect: httpx.Client,
    name: str,
    *payloads: dict[str, Any],
    at: datetime | None = None,
    resource: str = "tests.monitor",
) -> list[str]:
    """Ids of the events, once all are stored by the server."""
    occurred = (at or datetime.now(UTC)).isoformat()
    about = {"prefect.resource.id": resource}
    events = [
        {"id": str(uuid4()), "event": name, "occurred": occurred, "resource": about, "payload": payload}
        for payload in payloads
    ]
    ids = [event["id"] for event in events]
    prefect.post("/events", json=events).raise_for_status()
    query = {"filter": {"id": {"id": ids}}, "limit": 1}
    wait_until(lambda: prefect.post("/events/filter", json=query).json()["total"] == len(ids))
    return [str(each) for each in ids]


def kept(clm: Services) -> set[str]:
    messages = clm.ledger.triggers.messages(limit=1000)
    return {message.message_id for message in messages if message.source == prefect_events.SOURCE}


def test_an_event_is_submitted_once(clm: Services, prefect: httpx.Client) -> None:
    [event] = emit(prefect, "performance.degraded", GOOD)
    dispatch_pending(clm)
    [answer] = clm.ledger.triggers.answers(message=(prefect_events.SOURCE, event))
    assert (answer.reply, answer.model_id) == (Reply.REJECTED, "lightgbm_btcusd_1h")
    assert dispatch_pending(clm).answers == ()


def test_an_event_of_this_installation_about_a_regime_is_no_request(
    clm: Services, prefect: httpx.Client
) -> None:
    change = {"symbol": "BTCUSD", "timeframe": "1h", "current": "turbulent"}
    own = emit(prefect, "market.regime_changed", change, resource="clm.model.xgboost_btcusd_1h")
    prefect_events.collect(clm)
    assert kept(clm).isdisjoint(own)


def test_all_events_are_collected_however_many_and_however_late(clm: Services, prefect: httpx.Client) -> None:
    now = datetime.now(UTC)
    payloads = [GOOD] * (MAX_EVENTS_PAGE + 10)
    many = emit(prefect, "performance.degraded", *payloads, at=now - timedelta(minutes=1))
    prefect_events.collect(clm)
    late = emit(prefect, "performance.degraded", GOOD, at=now - timedelta(minutes=50))
    assert kept(clm).isdisjoint(late)
    prefect_events.collect(clm)
    assert kept(clm) >= {*many, *late}
    answer_messages(clm)


def test_an_event_stored_in_another_form_holds_up_no_later_event(
    clm: Services, prefect: httpx.Client
) -> None:
    known, new = emit(prefect, "performance.degraded", GOOD, GOOD)
    inbox.receive(clm, prefect_events.SOURCE, known, b"{}", clm.clock())
    prefect_events.collect(clm)
    assert new in kept(clm)
    answer_messages(clm)


def test_events_are_collected_after_the_clock_was_put_back(clm: Services, prefect: httpx.Client) -> None:
    tomorrow = clm.clock() + timedelta(days=1)
    inbox.receive(clm, prefect_events.SOURCE, str(uuid4()), b"{}", tomorrow)
    [event] = emit(prefect, "performance.degraded", GOOD, at=datetime.now(UTC) - timedelta(minutes=30))
    prefect_events.collect(clm)
    assert event in kept(clm)
    answer_messages(clm)


def test_an_unknown_event_stays_in_prefect(clm: Services, prefect: httpx.Client) -> None:
    [event] = emit(prefect, "model.liked", GOOD)
    prefect_events.collect(clm)
    assert event not in kept(clm)
    answer_messages(clm)
