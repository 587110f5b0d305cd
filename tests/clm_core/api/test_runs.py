"""Routes that create runs for a worker, through a real Prefect server that is sometimes away."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from clm_core.domain.actors import Actor
from clm_core.domain.vocabulary import Role
from clm_core.services import Services
from clm_core.triggers.requested_runs import request_run

Client = Callable[[Role | None], TestClient]
NOWHERE = "http://127.0.0.1:9/api"
SEARCHES: dict[str, dict[str, Any]] = {
    "tune": {"model_type": "lightgbm", "symbol": "BTC/USD", "trials": 2},
    "evolve": {"model_type": "lightgbm", "symbol": "BTC/USD"},
    "evolve-strategies": {"families": ["momentum"], "symbol": "BTC/USD"},
}


@pytest.fixture(scope="module")
def prefect(prefect_url: str) -> Iterator[httpx.Client]:
    """Server with deployments without worker, so that runs stay scheduled."""
    with httpx.Client(base_url=prefect_url) as client:
        made = []
        for flow, deployment in (*((each, each) for each in ("watch", *SEARCHES)), ("shadow", "shadow-1h")):
            flow_id = client.post("/flows/", json={"name": flow}).json()["id"]
            made.append(client.post("/deployments/", json={"name": deployment, "flow_id": flow_id}).json())
        yield client
        for each in made:
            client.delete(f"/deployments/{each['id']}")


def run_of(prefect: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    run: dict[str, Any] = prefect.get(f"/flow_runs/{answer.json()['run_id']}").json()
    return run


def test_a_watch_is_created_once_for_a_key_named_in_the_audit_and_its_state_is_read(
    client: Client, prefect: httpx.Client, services: Services
) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    answers = [client(Role.OPERATOR).post("/clm/watch", headers=key, json=body) for body in ({}, {})]
    assert answers[0].json() == answers[1].json()
    assert (answers[0].json()["flow"], answers[0].json()["search"]) == ("watch", None)
    run = run_of(prefect, answers[0])
    assert (run["parameters"], run["tags"]) == ({}, ["requested by operator"])
    entries = [
        (entry.actor, entry.subject)
        for entry in services.ledger.audit_after(0, 10**6)
        if entry.details.get("run_id") == run["id"]
    ]
    assert entries == [("operator", "watch")]
    state = client(Role.VIEWER).get(f"/clm/runs/{run['id']}").json()
    assert (state["state"], state["description"]) == ("under_way", "Scheduled")
    assert client(Role.VIEWER).get(f"/clm/runs/{uuid.uuid4()}").status_code == 404


def test_a_request_repeated_after_a_crash_finds_the_run_of_its_key(
    prefect: httpx.Client, services: Services
) -> None:
    actor = Actor(name="ada", role=Role.OPERATOR)
    key = uuid.uuid4().hex
    first, again = (
        request_run(services, "tune", {"request": {"study": study}}, actor, key=key) for study in "ab"
    )
    assert again == first
    assert again.parameters == {"request": {"study": "a"}}


@pytest.mark.parametrize("timeframe", ["1h", "4h", None])
def test_a_shadow_pass_takes_its_deployment_or_any_other_of_the_flow(
    timeframe: str | None, client: Client, prefect: httpx.Client
) -> None:
    answer = client(Role.OPERATOR).post("/clm/shadow", json={"timeframe": timeframe})
    assert run_of(prefect, answer)["parameters"] == {"timeframe": timeframe}


@pytest.mark.parametrize("flow", SEARCHES)
def test_a_search_is_requested_in_the_name_of_the_caller_and_can_be_continued_by_name(
    flow: str, client: Client, prefect: httpx.Client
) -> None:
    answer = client(Role.OPERATOR).post(f"/clm/{flow}", json=SEARCHES[flow])
    request = run_of(prefect, answer)["parameters"]["request"]
    assert request["requested_by"] == "operator"
    assert answer.json()["search"] == request["study" if flow == "tune" else "name"]
    named = SEARCHES[flow] | {"requested_by": "bob", "study" if flow == "tune" else "name": "mine"}
    answer = client(Role.OPERATOR).post(f"/clm/{flow}", json=named)
    request = run_of(prefect, answer)["parameters"]["request"]
    assert request["requested_by"] == "bob, by the token of operator"
    assert answer.json()["search"] == "mine"


@pytest.mark.parametrize("flow", SEARCHES)
@pytest.mark.parametrize(
    ("changes", "status", "named"),
    [
        ({"symbol": "NOSUCH"}, 422, "NOSUCH"),
        ({"training_params": {"max_dpeth": 3}}, 422, "max_dpeth"),
        ({"ray_address": "elsewhere:6379"}, 403, "RAY_ADDRESS"),
    ],
    ids=["unknown market", "unknown parameter", "cluster of the caller"],
)
def test_a_search_that_cannot_begin_is_refused_before_a_run_exists(
    flow: str, changes: dict[str, Any], status: int, named: str, client: Client
) -> None:
    answer = client(Role.OPERATOR).post(f"/clm/{flow}", json=SEARCHES[flow] | changes)
    assert answer.status_code == status
    assert named in answer.json()["detail"]


def test_without_a_server_the_answer_says_what_to_start_and_names_no_address(
    client: Client, prefect: httpx.Client
) -> None:
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        answer = client(Role.OPERATOR).post("/clm/watch")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:clm:problem:prefect-unavailable")
    assert "`clm up`" in answer.json()["detail"]
    assert "127.0.0.1" not in answer.text


def test_a_study_is_read_by_name_before_its_first_trial_has_ended(
    client: Client, prefect: httpx.Client, services: Services
) -> None:
    from clm_core.domain.tuning import TuneRequest
    from clm_core.search import tuning

    name = f"read-{uuid.uuid4().hex}"
    tuning.open_tuning(services, TuneRequest.model_validate(SEARCHES["tune"] | {"study": name}))
    study = client(Role.VIEWER).get(f"/clm/tune/{name}").json()
    assert (study["study"], study["requested"], study["trials"], study["best"]) == (name, 2, [], None)
    assert client(Role.VIEWER).get("/clm/tune/nosuchthing").status_code == 404
