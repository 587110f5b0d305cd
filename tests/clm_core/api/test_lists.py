"""Lists of alerts, requests to retrain, and series of bars."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from markets import add_market

from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]


def test_alerts_are_listed_newest_first_page_by_page_with_their_ends(
    client: Client, services: Services
) -> None:
    subjects = [f"receiver {uuid.uuid4().hex}" for _ in range(2)]
    kind = AlertKind.DELIVERY_FAILING
    now = datetime.now(UTC)
    for subject in subjects:
        services.alerts.record(Alert(kind=kind, subject=subject, message="It refused.", at=now))
    services.alerts.end(kind, subjects[1], now)
    get = client(Role.VIEWER).get
    first = get("/clm/alerts", params={"kind": kind, "limit": 1}).json()
    second = get("/clm/alerts", params={"kind": kind, "limit": 1, "after": first["next"]}).json()
    assert [page["items"][0]["subject"] for page in (first, second)] == subjects[::-1]
    assert first["items"][0]["ended_at"] is not None
    lasting = get("/clm/alerts", params={"kind": kind, "lasting": True, "limit": 1}).json()
    assert [each["subject"] for each in lasting["items"]] == subjects[:1]
    assert get("/clm/alerts", params={"limit": 1000}).json()["next"] is None
    services.alerts.end(kind, subjects[0], now)


def test_requests_to_retrain_are_listed_with_their_answers(client: Client, services: Services) -> None:
    add_market(services.settings.home, "LISTEDUSD")
    body = {"model_type": "lightgbm", "symbol": "LISTEDUSD"}
    for _ in range(2):
        client(Role.OPERATOR).post("/clm/train", json=body)
    get = client(Role.VIEWER).get
    first = get("/clm/triggers", params={"model_id": "lightgbm_listedusd_1h", "limit": 1}).json()
    [newest] = first["items"]
    assert (newest["reply"], newest["request"]["training"]["requested_by"]) == ("coalesced", "operator")
    following = get("/clm/triggers", params={"model_id": "lightgbm_listedusd_1h", "after": first["next"]})
    assert following.json()["items"][0]["number"] < newest["number"]
    accepted = get("/clm/triggers", params={"model_id": "lightgbm_listedusd_1h", "reply": "accepted"}).json()
    assert {each["reply"] for each in accepted["items"]} == {"accepted"}


def test_a_message_set_aside_is_listed_with_the_reason_and_without_its_body(
    client: Client, services: Services
) -> None:
    from clm_core.triggers import dispatch, inbox

    message_id = uuid.uuid4().hex
    inbox.receive(services, "tests", message_id, b'{"type": "nonsense"}', services.clock())
    dispatch.answer_messages(services)
    listed = client(Role.VIEWER).get("/clm/triggers/set-aside").json()
    [message] = [each for each in listed if each["message_id"] == message_id]
    assert set(message) == {"source", "message_id", "received_at", "error"}
    assert message["error"]


def test_every_series_is_listed_and_one_has_the_history_of_its_snapshots(client: Client) -> None:
    get = client(Role.VIEWER).get
    series = {(each["symbol"], each["timeframe"]): each for each in get("/clm/data").json()}
    listed = series["BTCUSD", "1h"]
    shown = get("/clm/data/btcusd/1h").json()
    # a bar may close between the two requests
    later = {"late_bars"}
    assert {name: shown[name] for name in listed.keys() - later} == {
        name: listed[name] for name in listed.keys() - later
    }
    assert (listed["newest_close"], listed["is_stale"]) == ("2019-10-17T10:00:00Z", True)
    assert shown["history"][-1]["content_hash"] == listed["content_hash"]


@pytest.mark.parametrize("path", ["NOSUCH/1h", "BTCUSD/1w"])
def test_a_series_that_is_not_stored_is_not_found(path: str, client: Client) -> None:
    answer = client(Role.VIEWER).get(f"/clm/data/{path}")
    assert answer.status_code == 404
    assert "BTCUSD" in answer.json()["detail"]
