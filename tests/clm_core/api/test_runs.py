"""Routes that create runs for a worker, through a real Prefect server that is sometimes away."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from clm_core.domain.actors import Actor
from clm_core.domain.replays import PolicyReplay, ReplayCurve, ReplayFigures, ReplayRequest, ReplayResult
from clm_core.domain.vocabulary import Role
from clm_core.lifecycle import replay
from clm_core.lifecycle.kept_replays import keep
from clm_core.services import Services
from clm_core.triggers.requested_runs import request_run

Client = Callable[[Role | None], TestClient]
REPLAY: dict[str, Any] = {
    "model_type": "lightgbm",
    "symbol": "BTC/USD",
    "start": "2018-07-01",
    "end": "2018-08-01",
    "compare": ["thresholds-only"],
}
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
        for flow, deployment in (
            *((each, each) for each in ("watch", "replay", *SEARCHES)),
            ("shadow", "shadow-1h"),
        ):
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


def test_a_replay_is_requested_for_a_worker(client: Client, prefect: httpx.Client) -> None:
    answer = client(Role.OPERATOR).post("/clm/replays", json=REPLAY)
    run = run_of(prefect, answer)
    assert answer.json()["flow"] == "replay"
    request = ReplayRequest.model_validate(run["parameters"]["request"])
    assert request == ReplayRequest.model_validate(REPLAY)
    assert client(Role.VIEWER).post("/clm/replays", json=REPLAY).status_code == 403


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"symbol": "NOSUCH"}, "NOSUCH"),
        ({"end": "2030-01-01"}, "name days within the bars"),
        ({"end": "2018-07-02"}, "7 days or more"),
        ({"training_params": {"max_dpeth": 3}}, "max_dpeth"),
        ({"policy": "no such preset"}, "no such preset"),
        ({"policy": "/etc/passwd.toml"}, "names presets, and not the file"),
    ],
    ids=["unknown market", "after the bars", "too short", "unknown parameter", "unknown policy", "a file"],
)
def test_an_impossible_replay_is_refused_before_a_run_exists(
    changes: dict[str, Any], named: str, client: Client
) -> None:
    answer = client(Role.OPERATOR).post("/clm/replays", json=REPLAY | changes)
    assert answer.status_code == 422
    assert named in answer.text


def test_a_kept_replay_is_listed_and_read_with_its_page(client: Client, services: Services) -> None:
    figures = ReplayFigures(total_return=0.1, sharpe_ratio=None, max_drawdown=0.0, trades=1, exposure=0.5)
    curves = tuple(
        ReplayCurve(name=name, meaning=name, figures=figures, equity=(1.0, 1.1))
        for name in ("production", "newest", "never", "hold")
    )
    replayed = PolicyReplay.model_validate(
        dict.fromkeys(("retrains", "passed", "promotions", "rollbacks", "days_in_production", "trials"), 0)
        | {"policy": "strict", "events": (), "curves": curves}
    )
    days = tuple(datetime(2018, 7, day, tzinfo=UTC) for day in (2, 3))
    result = ReplayResult(request=ReplayRequest.model_validate(REPLAY), days=days, policies=(replayed,))
    page = replay.write_page(services.settings.home, result)
    name = f"{uuid.uuid4()}"
    keep(services.reports, page, result, name)
    (services.reports / "replays" / "former.json").write_text("{}")
    viewer = client(Role.VIEWER)
    listed = viewer.get("/clm/replays").json()
    [own] = [each for each in listed["replays"] if each["name"] == name]
    assert own["digest"] == result.digest
    assert own["headlines"][0].startswith("Under strict: retrains: 0")
    assert listed["unread"] == ["former"]
    kept = viewer.get(f"/clm/replays/{name}").json()
    assert ReplayResult.model_validate(kept["result"]) == result
    shown = viewer.get(f"/clm/replays/{name}/report")
    assert shown.status_code == 200, shown.text
    assert shown.headers["content-type"].startswith("text/html")
    assert "Replay of lightgbm on BTC/USD 1h" in shown.text
    assert "`clm replays`" in viewer.get("/clm/replays/nosuchthing").json()["detail"]
    assert "another release" in viewer.get("/clm/replays/former").json()["detail"]
    page.unlink()
    assert viewer.get(f"/clm/replays/{name}/report").status_code == 404


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
