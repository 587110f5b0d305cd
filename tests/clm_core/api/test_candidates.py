"""Route of proposed candidates."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from clm_core.domain.vocabulary import Role

Client = Callable[[Role | None], TestClient]
BODY: dict[str, Any] = {"model_type": "momentum", "symbol": "BTCUSD", "params": {"look_back": 30}}


def test_operators_propose_candidates_and_viewers_list_them(client: Client) -> None:
    name = f"rest {uuid.uuid4().hex}"
    key = {"Idempotency-Key": uuid.uuid4().hex}
    answer = client(Role.OPERATOR).post("/clm/candidates", json=BODY | {"base_strategy": name}, headers=key)
    assert answer.status_code == 201
    candidate = answer.json()
    expected = {"base_strategy": name, "plugin": "momentum", "origin": "manual", "awaits_evaluation": True}
    assert candidate == candidate | expected
    repeated = client(Role.OPERATOR).post("/clm/candidates", json=BODY | {"base_strategy": name}, headers=key)
    assert (repeated.json(), repeated.headers["Idempotency-Replayed"]) == (candidate, "true")
    again = client(Role.OPERATOR).post("/clm/candidates", json=BODY | {"base_strategy": name})
    assert (again.status_code, again.json()) == (201, candidate)
    listed = client(Role.VIEWER).get(
        "/clm/candidates", params={"base_strategy": name, "awaits_evaluation": True}
    )
    assert listed.json()["items"] == [candidate]
    assert client(Role.VIEWER).post("/clm/candidates", json=BODY).status_code == 403


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"params": {"lookback": 30}}, "lookback"),
        ({"params": {"look_back": 0}}, "look_back: Input should be greater than or equal to 1"),
        ({"symbol": "NOSUCH"}, "NOSUCH"),
        ({"model_type": "momentun"}, "model_type"),
        ({"model_type": "other", "plugin": "astrology"}, "astrology"),
        ({"param": {}}, "param"),
    ],
)
def test_an_impossible_evaluation_is_answered_with_422_naming_the_fault(
    client: Client, changes: dict[str, Any], named: str
) -> None:
    answer = client(Role.OPERATOR).post("/clm/candidates", json=BODY | changes)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_a_full_queue_is_answered_with_409_and_the_number_that_may_wait(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clm_core.search.posted.MAX_WAITING", 0)
    answer = client(Role.OPERATOR).post("/clm/candidates", json=BODY | {"base_strategy": uuid.uuid4().hex})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:clm:problem:too-many-waiting")
    assert answer.json()["detail"].startswith("0 candidates wait for their evaluation")
