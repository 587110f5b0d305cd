"""Approvals on a real Prefect server: a suspended run asks a person, and the answer is carried out."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import promoting
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner, Result

from clm_core.cli.app import app
from clm_core.domain.actors import FORM, Actor
from clm_core.domain.alerts import AlertKind
from clm_core.domain.errors import ApprovalRefused, ConflictError
from clm_core.domain.shadow_decisions import ShadowAction, ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.lifecycle import approvals
from clm_core.lifecycle.answered_forms import end_answered_forms
from clm_core.platform.prefect_server import load_flow
from clm_core.services import Services

NOWHERE = "http://127.0.0.1:9/api"
ADA = Actor(name="ada", role=Role.OPERATOR)
WAITS = ShadowDecision(
    action=ShadowAction.PROMOTE,
    reasons=("nothing serves, and 120 trades confirm",),
    progress="60 of 60 days",
    waits_for="promotion = approval in the policy",
    needs_approval=True,
)


@pytest.fixture
def clm(services: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    mine = promoting.by_thresholds(services)
    monkeypatch.setattr("clm_core.services._current", mine)
    return mine


@pytest.fixture(scope="module")
def prefect(prefect_url: str) -> Iterator[httpx.Client]:
    """Server with the deployment of the form, whose runs the tests execute."""
    with httpx.Client(base_url=prefect_url) as client:
        flow = client.post("/flows/", json={"name": "approve"}).json()
        made = client.post("/deployments/", json={"name": "approve", "flow_id": flow["id"]})
        yield client
        client.delete(f"/deployments/{made.json()['id']}")


@pytest.fixture
def waiting(
    clm: Services, make_version: Callable[..., ModelVersion], model_id: str
) -> Iterator[ModelVersion]:
    version = make_version(model_id)
    clm.ledger.shadow_decisions.record(None, model_id, version.version, None, WAITS, clm.clock())
    yield version
    if status(clm, version) is ModelStatus.CANDIDATE:
        clm.promotions.retire(model_id, version.version, ADA, "the test has ended", clm.clock())


def status(clm: Services, version: ModelVersion) -> ModelStatus:
    return clm.ledger.version(version.model_id, version.version).status


def label_of(version: ModelVersion) -> str:
    return f"{version.model_id}@{version.version}"


def runs_of(prefect: httpx.Client, version: ModelVersion) -> list[dict[str, Any]]:
    """Newest first."""
    body = {"flow_runs": {"tags": {"all_": [label_of(version)]}}}
    runs: list[dict[str, Any]] = prefect.post("/flow_runs/filter", json=body).json()
    return sorted(runs, key=lambda run: str(run["created"]), reverse=True)


def is_told(clm: Services, version: ModelVersion) -> bool:
    return label_of(version) in [each.subject for each in clm.alerts.lasting(AlertKind.APPROVAL_WAITS)]


def execute(prefect: httpx.Client, version: ModelVersion) -> State[Any]:
    """Run the newest run of the version as a worker does; the state after."""
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(runs_of(prefect, version)[0]["id"])
        pending = {"state": {"type": "PENDING", "name": "Pending"}}
        assert prefect.post(f"/flow_runs/{run.id}/set_state", json=pending).json()["status"] == "ACCEPT"
        with contextlib.suppress(Pause):
            run_flow(load_flow("flows.approve.approve"), client.read_flow_run(run.id), run.parameters)
        state = client.read_flow_run(run.id).state
    assert state is not None
    return state


def commanded(clm: Services, monkeypatch: pytest.MonkeyPatch, *command: str) -> Result:
    """Result of a command in the home of the services, under their policies."""
    monkeypatch.setenv("CLM_HOME", str(clm.settings.home))
    monkeypatch.setattr("clm_core.services.open_services", lambda _: contextlib.nullcontext(clm))
    answer = CliRunner().invoke(app, list(command))
    assert answer.exit_code == 0, answer.output
    return answer


def resume(prefect: httpx.Client, version: ModelVersion, **answer: Any) -> None:
    run = runs_of(prefect, version)[0]
    sent = prefect.post(f"/flow_runs/{run['id']}/resume", json={"run_input": answer}).json()
    assert sent["status"] == "ACCEPT", sent


def test_a_suspended_run_asks_and_an_approval_promotes(
    clm: Services, waiting: ModelVersion, prefect: httpx.Client
) -> None:
    assert approvals.keep_forms(clm) == approvals.keep_forms(clm) == []
    [run] = runs_of(prefect, waiting)
    assert execute(prefect, waiting).name == "Suspended"
    description = prefect.get(f"/flow_runs/{run['id']}/input/suspended-answer-description").json()
    assert f"Promote **{label_of(waiting)}** to production, where no version serves?" in description
    assert is_told(clm, waiting)

    resume(prefect, waiting, approve=True, name="ada")
    done = execute(prefect, waiting)
    assert (done.name, done.message) == (
        "Completed",
        f"{label_of(waiting)} is approved, and its status is production.",
    )
    [change] = clm.ledger.promotions.committed(waiting.model_id)
    assert (change.actor, change.said_by, change.expected) == (FORM.name, "ada", True)
    assert change.reason == "approved: nothing serves, and 120 trades confirm"
    assert not is_told(clm, waiting)
    assert len(runs_of(prefect, waiting)) == 1


def test_the_command_lists_what_waits(
    clm: Services, waiting: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(clm.settings.home))
    answer = CliRunner().invoke(app, ["approvals", "--json"])
    [shown] = [each for each in json.loads(answer.stdout) if each["model_id"] == waiting.model_id]
    assert (shown["version"], shown["progress"]) == (waiting.version, "60 of 60 days")
    assert label_of(waiting) in CliRunner().invoke(app, ["approvals"]).stdout


def test_a_refusal_needs_a_reason_and_retires(
    clm: Services, waiting: ModelVersion, prefect: httpx.Client
) -> None:
    approvals.keep_forms(clm)
    execute(prefect, waiting)
    resume(prefect, waiting, approve=False, name="ada")
    assert "needs a reason" in (execute(prefect, waiting).message or "")
    assert status(clm, waiting) is ModelStatus.CANDIDATE

    # the next pass asks again
    approvals.keep_forms(clm)
    assert len(runs_of(prefect, waiting)) == 2
    execute(prefect, waiting)
    resume(prefect, waiting, approve=False, name="ada", reason="the edge is a fee error")
    execute(prefect, waiting)
    assert status(clm, waiting) is ModelStatus.RETIRED
    [entry] = [
        each
        for each in clm.ledger.audit_after(0, 10**6)
        if each.subject.startswith(waiting.model_id) and "the edge" in str(each.details)
    ]
    assert "approval refused by ada: the edge is a fee error" in str(entry.details)


def test_a_run_ends_when_the_version_is_decided_elsewhere(
    clm: Services, waiting: ModelVersion, prefect: httpx.Client
) -> None:
    approvals.keep_forms(clm)
    execute(prefect, waiting)
    approvals.answer(clm, waiting.model_id, waiting.version, False, "a fee error", ADA)
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        [problem] = approvals.keep_forms(clm)
        assert "Prefect did not carry out the request" in problem
        assert is_told(clm, waiting)
    assert approvals.keep_forms(clm) == []
    [run] = runs_of(prefect, waiting)
    assert (run["state_type"], is_told(clm, waiting)) == ("CANCELLED", False)


@pytest.mark.parametrize(
    "command",
    [pytest.param(["promote"], id="promote"), pytest.param(["retire"], id="retire")],
)
def test_a_command_that_decides_ends_the_run_at_once(
    command: list[str],
    clm: Services,
    waiting: ModelVersion,
    prefect: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    approvals.keep_forms(clm)
    execute(prefect, waiting)
    commanded(clm, monkeypatch, *command, label_of(waiting))
    [run] = runs_of(prefect, waiting)
    assert (run["state_type"], is_told(clm, waiting)) == ("CANCELLED", False)


def test_a_command_decides_without_prefect_and_the_next_pass_ends_the_run(
    clm: Services, waiting: ModelVersion, prefect: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    approvals.keep_forms(clm)
    execute(prefect, waiting)
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        answer = commanded(clm, monkeypatch, "retire", label_of(waiting))
    assert "ends with the next shadow pass: approvals: Prefect did not carry out the request" in answer.stderr
    assert status(clm, waiting) is ModelStatus.RETIRED
    assert is_told(clm, waiting)
    assert approvals.keep_forms(clm) == []
    [run] = runs_of(prefect, waiting)
    assert (run["state_type"], is_told(clm, waiting)) == ("CANCELLED", False)


def test_a_decision_about_a_model_without_a_form_asks_prefect_for_nothing(
    clm: Services, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approvals, "keep_forms", lambda _: pytest.fail("asked"))
    assert end_answered_forms(clm, model_id) == []


def test_an_answer_too_late_or_about_another_champion_changes_nothing(
    clm: Services, waiting: ModelVersion
) -> None:
    named = (waiting.model_id, waiting.version, True, "", ADA)
    with pytest.raises(ConflictError):
        approvals.answer(clm, *named, expected_champion="v20200101_000000")
    late = replace(clm, clock=lambda: clm.clock() + timedelta(days=8))
    with pytest.raises(ApprovalRefused, match="the next shadow pass retires the version"):
        approvals.answer(late, *named)
    clm.promotions.retire(waiting.model_id, waiting.version, ADA, "tested", clm.clock())
    with pytest.raises(ApprovalRefused, match="waits for no approval: the status is retired"):
        approvals.answer(clm, *named)
