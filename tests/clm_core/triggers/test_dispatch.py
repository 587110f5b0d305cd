"""Pending jobs are started once, through a real Prefect server that is sometimes down."""

import contextvars
import json
import os
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from jobs import after
from markets import add_markets
from patience import PATIENT_SECONDS
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from clm_core.domain.actors import Actor
from clm_core.domain.errors import IllegalTransition
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.triggers import Answer, Reply, TriggerRequest
from clm_core.domain.vocabulary import JobStatus, ModelType, Role
from clm_core.market.sources import MarketData
from clm_core.platform.prefect_runs import DIAGNOSIS
from clm_core.retraining import jobs
from clm_core.services import Services
from clm_core.triggers import inbox, intake, pending
from clm_core.triggers.dispatch import dispatch_pending, start_pending_jobs

NOWHERE = "http://127.0.0.1:9/api"
MODEL = {"model_type": "lightgbm", "symbol": "BTCUSD"}


@pytest.fixture(scope="module")
def prefect(prefect_url: str) -> Iterator[httpx.Client]:
    """Server with a deployment without worker, so that runs stay scheduled."""
    with httpx.Client(base_url=prefect_url) as client:
        flow = client.post("/flows/", json={"name": "retrain"}).json()
        made = client.post("/deployments/", json={"name": "on-demand", "flow_id": flow["id"]})
        yield client
        client.delete(f"/deployments/{made.json()['id']}")


@pytest.fixture
def prefect_down() -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        yield


def ask(clm: Services, **changes: Any) -> Answer:
    training = RetrainRequest.model_validate(MODEL | changes)
    actor = Actor(name="ada", role=Role.OPERATOR)
    return intake.submit(clm, TriggerRequest(training=training, actor=actor, source="tests"))


def runs_of(prefect: httpx.Client, *job_ids: UUID) -> list[dict[str, Any]]:
    runs = list[dict[str, Any]]()
    keys = {str(job_id) for job_id in job_ids}
    while page := prefect.post("/flow_runs/filter", json={"limit": 200, "offset": len(runs)}).json():
        runs += page
    return [run for run in runs if run["idempotency_key"] in keys]


def test_a_pending_job_gets_one_run_with_its_request(clm: Services, prefect: httpx.Client) -> None:
    job_id = ask(clm, dataset_span_days=90, training_params={"rounds": 2}).job_id
    assert job_id is not None
    started = start_pending_jobs(clm)
    assert (list(started.runs), started.waiting, started.problem) == ([job_id], (), None)
    assert start_pending_jobs(clm).runs == {}
    [run] = runs_of(prefect, job_id)
    assert run["id"] == str(started.runs[job_id])
    assert run["parameters"]["job_id"] == str(job_id)
    request = RetrainRequest.model_validate(run["parameters"]["request"])
    assert (request.dataset_span_days, request.training_params) == (
        90,
        clm.ledger.job(job_id).training_params,
    )
    assert request.training_params["rounds"] == 2
    assert set(run["tags"]) >= {"lightgbm_btcusd_1h", "manual"}


def test_a_server_with_a_password_gets_the_password(clm: Services) -> None:
    received = list[str | None]()

    class Prefect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.headers["Authorization"])
            self.send_error(HTTPStatus.UNAUTHORIZED)

    ask(clm)
    with HTTPServer(("127.0.0.1", 0), Prefect) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: "clm:secret"}):
            started = start_pending_jobs(clm)
    assert received == [f"Basic {b64encode(b'clm:secret').decode()}"]
    assert "401" in str(started.problem)


def test_a_dispatch_killed_before_storing_the_run_starts_no_second_run(
    clm: Services, prefect: httpx.Client
) -> None:
    job_id = ask(clm).job_id
    assert job_id is not None
    first = start_pending_jobs(clm).runs
    clm.ledger.triggers.forget_run(job_id)
    assert start_pending_jobs(clm).runs == first
    assert len(runs_of(prefect, job_id)) == 1


def test_a_pending_job_is_started_by_hand_once(clm: Services, prefect: httpx.Client) -> None:
    job_id = ask(clm).job_id
    assert job_id is not None
    run_id = pending.start(clm, job_id)
    assert pending.start(clm, job_id) == run_id
    assert start_pending_jobs(clm).runs == {}
    [run] = runs_of(prefect, job_id)
    assert run["id"] == str(run_id)


def test_the_run_of_a_cancelled_job_is_cancelled(clm: Services, prefect: httpx.Client) -> None:
    job_id = ask(clm).job_id
    assert job_id is not None
    start_pending_jobs(clm)
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        pending.cancel(clm, job_id, Actor(name="ada", role=Role.OPERATOR))
    [run] = runs_of(prefect, job_id)
    assert run["state_type"] == "SCHEDULED"
    start_pending_jobs(clm)
    [run] = runs_of(prefect, job_id)
    assert (run["state_type"], run["state"]["message"]) == ("CANCELLED", f"Job {job_id} was cancelled.")
    with pytest.raises(IllegalTransition, match="only a pending job can be started"):
        pending.start(clm, job_id)


def test_a_job_reserved_for_this_process_is_started_by_no_worker(
    clm: Services, prefect: httpx.Client
) -> None:
    job_id = ask(clm).job_id
    assert job_id is not None
    start_pending_jobs(clm)
    assert pending.reserve(clm, job_id).id == job_id
    [run] = runs_of(prefect, job_id)
    assert run["state_type"] == "CANCELLED"
    assert start_pending_jobs(clm).failed == ()
    with jobs.running(clm, clm.ledger.job(job_id)):
        other = ask(clm, training_params={"rounds": 3}).job_id
        assert other is not None
        with pytest.raises(IllegalTransition, match=f"job {other} can start when it has ended"):
            pending.reserve(clm, other)


def test_four_dispatches_at_once_start_one_run(clm: Services, prefect: httpx.Client) -> None:
    job_id = ask(clm).job_id
    assert job_id is not None
    with ThreadPoolExecutor(4) as pool:
        # each thread has to know the server that the test talks to
        known = [contextvars.copy_context() for _ in range(4)]
        list(pool.map(lambda context: context.run(start_pending_jobs, clm), known))
    assert len(runs_of(prefect, job_id)) == 1


@pytest.mark.usefixtures("prefect_down")
def test_while_prefect_is_down_jobs_wait_and_the_result_says_so(clm: Services) -> None:
    job_id = ask(clm).job_id
    started = start_pending_jobs(clm)
    assert (started.runs, started.waiting) == ({}, (job_id,))
    assert "Prefect did not carry out the request" in str(started.problem)


def test_without_a_deployment_a_job_waits_and_the_result_has_the_next_step(
    clm: Services, prefect: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ask(clm).job_id
    monkeypatch.setattr("clm_core.triggers.dispatch.ON_DEMAND", "not deployed")
    started = start_pending_jobs(clm)
    assert started.waiting == (job_id,)
    assert "clm deploy" in str(started.problem)


def test_a_second_job_of_a_model_is_started_when_the_first_has_ended(
    clm: Services, prefect: httpx.Client
) -> None:
    first = ask(clm).job_id
    assert first is not None
    start_pending_jobs(clm)
    lease = clm.ledger.start_job(first, "worker", clm.clock(), timedelta(minutes=1))
    second = ask(clm).job_id
    assert start_pending_jobs(clm).runs == {}
    clm.ledger.complete_job(lease, clm.clock())
    assert list(start_pending_jobs(clm).runs) == [second]


def test_a_job_whose_runner_died_does_not_hold_up_the_next(clm: Services, prefect: httpx.Client) -> None:
    first = ask(clm).job_id
    assert first is not None
    clm.ledger.start_job(first, "worker", clm.clock(), timedelta(minutes=1))
    second = ask(clm).job_id
    assert list(start_pending_jobs(after(clm, hours=1)).runs) == [second]
    assert clm.ledger.job(first).status is JobStatus.FAILED


def test_the_wait_for_the_heartbeat_of_one_model_holds_up_no_other_model(
    clm: Services, prefect: httpx.Client
) -> None:
    dead = ask(clm).job_id
    assert dead is not None
    clm.ledger.start_job(dead, "worker", clm.clock(), timedelta(minutes=1))
    other = ask(clm, model_type=ModelType.XGBOOST).job_id
    at_the_wait = list[list[UUID]]()

    def note(seconds: float) -> None:
        at_the_wait.append(list(clm.ledger.triggers.unstarted_runs()))

    second = ask(clm).job_id
    late = replace(after(clm, hours=1), pause=note)
    assert list(start_pending_jobs(late).runs) == [other, second]
    assert at_the_wait == [[other]]


def test_a_job_whose_run_was_cancelled_before_it_began_says_so_with_the_message_of_prefect(
    clm: Services, prefect: httpx.Client
) -> None:
    job_id = ask(clm).job_id
    assert job_id is not None
    run_id = start_pending_jobs(clm).runs[job_id]
    cancelled = {"state": {"type": "CANCELLED", "message": "not today"}, "force": True}
    prefect.post(f"/flow_runs/{run_id}/set_state", json=cancelled).raise_for_status()
    assert start_pending_jobs(clm).failed == (job_id,)
    job = clm.ledger.job(job_id)
    assert job.failure_cause == "cancelled by a person in Prefect before the start (Cancelled: not today)"
    assert job.cancelled_by == "prefect"


def pod_event(run_id: UUID, diagnosis: str) -> dict[str, Any]:
    """Event of prefect-kubernetes about the pod of a run."""
    now = datetime.now(UTC).isoformat()
    return {
        "id": str(uuid4()),
        "event": "prefect.kubernetes.pod.failed",
        "occurred": now,
        "resource": {"prefect.resource.id": f"prefect.kubernetes.pod.{uuid4()}", DIAGNOSIS: diagnosis},
        "related": [
            {"prefect.resource.id": f"prefect.flow-run.{run_id}", "prefect.resource.role": "flow-run"}
        ],
    }


def test_a_job_in_progress_fails_at_once_if_kubernetes_killed_its_pod(
    clm: Services, prefect: httpx.Client
) -> None:
    killed = ask(clm).job_id
    waiting = ask(clm, model_type=ModelType.XGBOOST).job_id
    assert killed is not None
    assert waiting is not None
    runs = start_pending_jobs(clm).runs
    for job_id in (killed, waiting):
        clm.ledger.start_job(job_id, "worker", clm.clock(), timedelta(minutes=1))
        crashed = {"state": {"type": "CRASHED", "message": "no pods"}, "force": True}
        prefect.post(f"/flow_runs/{runs[job_id]}/set_state", json=crashed).raise_for_status()
    assert start_pending_jobs(clm).failed == ()
    events = [pod_event(runs[killed], "OOMKilled"), pod_event(runs[waiting], "Unschedulable")]
    prefect.post("/events", json=events).raise_for_status()
    deadline = time.monotonic() + PATIENT_SECONDS
    while not all(reported(prefect, runs[job_id]) for job_id in (killed, waiting)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert start_pending_jobs(clm).failed == (killed,)
    assert clm.ledger.job(killed).failure_cause == "the run was killed: OOMKilled: Crashed: no pods"
    assert clm.ledger.job(waiting).status is JobStatus.IN_PROGRESS


def reported(prefect: httpx.Client, run_id: UUID) -> bool:
    related = {"filter": {"related": {"id": [f"prefect.flow-run.{run_id}"]}}}
    events = prefect.post("/events/filter", json=related).json()["events"]
    return any(DIAGNOSIS in event["resource"] for event in events)


def test_a_job_whose_run_was_deleted_gets_another(clm: Services, prefect: httpx.Client) -> None:
    job_id = ask(clm).job_id
    assert job_id is not None
    first = start_pending_jobs(clm).runs[job_id]
    prefect.delete(f"/flow_runs/{first}").raise_for_status()
    assert start_pending_jobs(clm).runs[job_id] != first


def test_a_job_is_reserved_for_the_run_that_requested_it_until_the_lease_expires(
    clm: Services, prefect: httpx.Client
) -> None:
    training = RetrainRequest.model_validate(MODEL)
    job = intake.submit_and_claim(clm, training, "terminal", UUID(int=1))
    assert not isinstance(job, Answer)
    assert start_pending_jobs(clm).runs == {}
    late = replace(clm, clock=lambda: clm.clock() + timedelta(minutes=2))
    assert list(start_pending_jobs(late).runs) == [job.id]


def test_a_reservation_ends_when_the_clock_is_put_back(clm: Services, prefect: httpx.Client) -> None:
    training = RetrainRequest.model_validate(MODEL)
    ahead = replace(clm, clock=lambda: clm.clock() + timedelta(days=1))
    job = intake.submit_and_claim(ahead, training, "terminal", UUID(int=1))
    assert not isinstance(job, Answer)
    assert list(start_pending_jobs(clm).runs) == [job.id]


def test_a_run_that_requests_a_job_while_another_runs_leaves_the_job_to_dispatch(
    clm: Services, prefect: httpx.Client
) -> None:
    first = ask(clm).job_id
    assert first is not None
    lease = clm.ledger.start_job(first, "worker", clm.clock(), timedelta(minutes=1))
    answer = intake.submit_and_claim(clm, RetrainRequest.model_validate(MODEL), "terminal", UUID(int=1))
    assert isinstance(answer, Answer)
    assert answer.because == f"the job starts when job {first} of the same model has ended"
    clm.ledger.complete_job(lease, clm.clock())
    assert list(start_pending_jobs(clm).runs) == [answer.job_id]


MARKETS = 100 if "CHAOS_REPETITIONS" in os.environ else 20
"""Number of markets, with two models each."""


@pytest.fixture(scope="module")
def many_markets(tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    home: Path = tmp_path_factory.mktemp("markets")
    add_markets(home, MARKETS)
    return MarketData(home)


def test_messages_received_while_prefect_is_down_get_one_run_each_when_it_is_back(
    clm: Services, prefect: httpx.Client, many_markets: MarketData
) -> None:
    clm = replace(clm, open_market=lambda: many_markets)
    models = [
        {"model_type": model_type.value, "symbol": f"M{number:03}USD", "requested_by": "ada"}
        for number in range(MARKETS)
        for model_type in (ModelType.XGBOOST, ModelType.LIGHTGBM)
    ]
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        for _ in range(2):
            for number, model in enumerate(models):
                body = json.dumps({"type": "manual.training_requested", "data": model}).encode()
                inbox.receive(clm, "desk", str(number), body, clm.clock())
        outage = dispatch_pending(clm)
    assert len(outage.answers) == len(outage.started.waiting) == len(models)
    assert {answer.reply for answer in outage.answers} == {Reply.ACCEPTED}
    assert outage.started.runs == {}
    back = dispatch_pending(clm)
    assert len(back.started.runs) == len(models)
    assert back.started.waiting == ()
    assert len(runs_of(prefect, *outage.started.waiting)) == len(models)
    assert dispatch_pending(clm).started.runs == {}
