from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.ledger.receivers import EVENTS
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]
MakeVersion = Callable[..., ModelVersion]


@pytest.fixture
def pair(client: Client, make_version: MakeVersion, model_id: str) -> tuple[str, str]:
    """Labels of a production version and a candidate."""
    production, candidate = (make_version(model_id).version for _ in range(2))
    body = {"model_id": model_id, "version": production}
    assert client(Role.OPERATOR).post("/clm/promote", json=body).status_code == 200
    return production, candidate


def test_an_allocation_is_started_asked_reported_and_stopped(
    client: Client, pair: tuple[str, str], model_id: str, services: Services
) -> None:
    address = f"/clm/allocation/{model_id}"
    alone = client(Role.VIEWER).get(address).json()
    assert (alone["state"], alone["arms"]) == ("production", [arm(pair[0], 1.0)])
    body = {"candidates": [pair[1]], "reason": "try it"}
    started = client(Role.OPERATOR).post(address, json=body)
    assert (started.status_code, started.json()["arms"]) == (201, list(pair))
    # a lost answer: the same request is answered with the running allocation
    assert client(Role.OPERATOR).post(address, json=body).json() == started.json()
    other = client(Role.OPERATOR).post(address, json={"candidates": [pair[1]], "reason": "another"})
    assert (other.status_code, other.json()["type"]) == (409, "urn:clm:problem:conflict-error")

    running = client(Role.VIEWER).get(address, params={"bar": "2026-03-04T12:00:00Z"}).json()
    assert (running["state"], running["arms"]) == ("running", [arm(pair[0], 0.7), arm(pair[1], 0.3)])
    assert running["allocation"] == started.json()
    assert running["arm"]["version"] in pair
    again = client(Role.VIEWER).get(address, params={"bar": "2026-03-04T13:00:00+01:00"}).json()
    assert again["arm"]["version"] == running["arm"]["version"]
    assert client(Role.VIEWER).get(address, params={"bar": "2026-03-04T12:00:00"}).status_code == 422
    midnight = client(Role.VIEWER).get(address, params={"bar": "2026-03-04"}).json()["arm"]["bar"]
    assert midnight == "2026-03-04T00:00:00Z"

    early = {"bars": [{"bar": "2020-01-01", "version": pair[0]}]}
    refused = client(Role.OPERATOR).post(f"{address}/served", json=early)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:clm:problem:allocation-refused")
    assert client(Role.OPERATOR).post(f"{address}/served", json={"bars": []}).json() == {"new": 0}

    assert client(Role.OPERATOR).delete(address).status_code == 422
    stopped = client(Role.OPERATOR).delete(address, params={"reason": "enough"}).json()
    assert (stopped["end"], stopped["ended_by"], stopped["end_reason"]) == ("stopped", "operator", "enough")
    assert client(Role.OPERATOR).delete(address, params={"reason": "enough"}).json() == stopped
    assert client(Role.OPERATOR).delete(address, params={"reason": "more"}).status_code == 404
    assert client(Role.VIEWER).get(address).json() == alone
    sent = [each.payload for each in services.receivers.following(EVENTS, 0, 10**6)]
    mine = [each for each in sent if each.get("allocation_id") == stopped["id"]]
    assert [each["state"] for each in mine] == ["running", "production"]


def test_a_halted_model_is_answered_flat(client: Client, pair: tuple[str, str], model_id: str) -> None:
    address = f"/clm/allocation/{model_id}"
    assert client(Role.OPERATOR).post(address, json={"candidates": [pair[1]]}).status_code == 201
    halt = {"model_id": model_id, "reason": "exchange down"}
    assert client(Role.OPERATOR).post("/clm/halt", json=halt).status_code == 200
    answer = client(Role.VIEWER).get(address, params={"bar": "2026-03-04T12:00:00Z"}).json()
    assert (answer["state"], [each["weight"] for each in answer["arms"]]) == ("halted", [0.0, 0.0])
    assert answer["reasons"] == ["halted by operator: exchange down"]
    assert answer["arm"]["version"] is None


def test_a_model_without_production_has_no_allocation(
    client: Client, make_version: MakeVersion, model_id: str
) -> None:
    assert client(Role.VIEWER).get(f"/clm/allocation/{model_id}").status_code == 404
    candidate = make_version(model_id).version
    answer = client(Role.OPERATOR).post(f"/clm/allocation/{model_id}", json={"candidates": [candidate]})
    assert (answer.status_code, "no production version" in answer.json()["detail"]) == (404, True)


def arm(version: str, weight: float) -> dict[str, object]:
    return {"version": version, "weight": weight, "out": ""}
