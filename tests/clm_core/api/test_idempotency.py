import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from clm_core.api.app import create_app
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]
MODEL = "lightgbm_btcusd_1h"


@pytest.fixture
def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def a_request(**changes: object) -> dict[str, object]:
    return {"model_type": "lightgbm", "symbol": "BTCUSD", "training_params": {"rounds": 2}} | changes


def jobs(services: Services) -> int:
    return len(services.ledger.jobs(model_id=MODEL, limit=10_000))


def test_a_repeated_request_gets_the_same_response_and_is_done_once(
    client: Client, services: Services, key: dict[str, str]
) -> None:
    before = jobs(services)
    first = client(Role.OPERATOR).post("/clm/train", json=a_request(), headers=key)
    again = client(Role.OPERATOR).post("/clm/train", json=dict(reversed(a_request().items())), headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert (first.content, again.headers["idempotency-replayed"]) == (again.content, "true")
    assert "idempotency-replayed" not in first.headers
    assert jobs(services) - before <= 1


def test_a_refusal_is_repeated_as_well(client: Client, key: dict[str, str]) -> None:
    body = {"model_id": "xgboost_nosuchthing_1h", "version": "v20200101_000000"}
    first, again = (client(Role.OPERATOR).post("/clm/promote", json=body, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (404, 404)
    assert (first.content, again.headers["content-type"]) == (again.content, "application/problem+json")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/clm/train", a_request(seed=1), id="other-body"),
        pytest.param("/clm/rollback", {"model_id": MODEL}, id="other-address"),
    ],
)
def test_the_same_key_for_another_request_is_refused(
    path: str, body: dict[str, object], client: Client, key: dict[str, str]
) -> None:
    client(Role.OPERATOR).post("/clm/train", json=a_request(), headers=key)
    other = client(Role.OPERATOR).post(path, json=body, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "urn:clm:problem:key-reused")


def test_the_same_key_of_another_token_is_another_key(client: Client, key: dict[str, str]) -> None:
    client(Role.OPERATOR).post("/clm/train", json=a_request(), headers=key)
    other = client(Role.ADMIN).post("/clm/train", json=a_request(seed=1), headers=key)
    assert "idempotency-replayed" not in other.headers
    assert other.status_code == 202


def test_twenty_requests_at_once_are_executed_once(
    wired: Services, client: Client, key: dict[str, str]
) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(
                lambda _: client(Role.OPERATOR).post("/clm/train", json=a_request(), headers=key), range(20)
            )
        )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert len([answer for answer in answers if "idempotency-replayed" not in answer.headers]) == 1


def test_a_key_is_forgotten_after_a_day(
    wired: Services, make_token: Callable[..., str], key: dict[str, str]
) -> None:
    headers = key | {"Authorization": f"Bearer {make_token(Role.OPERATOR, lasts=timedelta(days=9))}"}
    replayed = []
    now = datetime.now(UTC)
    for after in (timedelta(0), timedelta(hours=23), timedelta(hours=25)):
        app = create_app(replace(wired, clock=lambda after=after: now + after))
        answer = TestClient(app).post("/clm/rollback", json={"model_id": MODEL}, headers=headers)
        replayed.append("idempotency-replayed" in answer.headers)
    assert replayed == [False, True, False]


@pytest.mark.parametrize("bad", ["", "x" * 101, "a b", "ä"], ids=["empty", "long", "space", "not-ascii"])
def test_an_invalid_key_is_refused(bad: str, client: Client) -> None:
    headers = {b"Idempotency-Key": bad.encode()}
    assert client(Role.OPERATOR).post("/clm/train", json=a_request(), headers=headers).status_code == 422
