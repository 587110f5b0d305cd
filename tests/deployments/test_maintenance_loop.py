"""The passes of `clm up`'s maintenance: no run in Prefect for a pass that finds nothing to do."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from prefect import get_client

from clm_core.domain.errors import PassIncomplete
from clm_core.operations.maintenance import MaintenancePart, MaintenancePartReport, MaintenanceReport
from clm_core.services import Services
from deployments import maintenance_loop
from flows.sequences.ended import Ended


def ended(*done: str) -> Ended[MaintenanceReport]:
    part = MaintenancePartReport(part=MaintenancePart.RECONCILE, done=done, problems=())
    report = MaintenanceReport(at=datetime.now(UTC), problems=(), parts=(part,), deliveries=(), conditions=())
    return Ended(report.headline, report)


def failing(error: Exception) -> Callable[[], Ended[MaintenanceReport]]:
    def fail() -> Ended[MaintenanceReport]:
        raise error

    return fail


@pytest.fixture
def runs_shown(
    services: Services, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[dict[str, Any]]]:
    """Runs of the deployment `maintenance`, made anew for each test, with the lines of their logs."""
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    # the runs of other tests carry another tag
    tag = f"test-{uuid.uuid4()}"
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("maintenance")
        client.create_deployment(flow_id=flow, name="maintenance", tags=[tag])

    def flow_runs() -> list[dict[str, Any]]:
        query = {"flow_runs": {"tags": {"all_": [tag]}}}
        runs: list[dict[str, Any]] = httpx.post(f"{prefect_url}/flow_runs/filter", json=query).json()
        for run in runs:
            of_run = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC"}
            logs = httpx.post(f"{prefect_url}/logs/filter", json=of_run).json()
            run["lines"] = [line["message"] for line in logs]
        return runs

    return flow_runs


def test_a_pass_without_work_is_no_run(
    services: Services, runs_shown: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance_loop, "maintenance", ended)
    maintenance_loop.make_pass(services.settings.home)
    assert runs_shown() == []


@pytest.mark.parametrize(
    ("outcome", "state", "message", "line"),
    [
        (lambda: ended("m: aborted"), "COMPLETED", "Parts run: 1.", "reconcile: m: aborted"),
        (failing(PassIncomplete("verify: m is changed")), "FAILED", "verify: m is changed", None),
        (failing(ValueError("odd")), "FAILED", "ValueError: odd", "Traceback"),
    ],
    ids=["work done", "a failed part", "an unexpected error"],
)
def test_a_pass_that_did_something_or_failed_is_a_run_with_its_sentences(
    outcome: Callable[[], Ended[MaintenanceReport]],
    state: str,
    message: str,
    line: str | None,
    services: Services,
    runs_shown: Callable[[], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maintenance_loop, "maintenance", outcome)
    maintenance_loop.make_pass(services.settings.home)
    [run] = runs_shown()
    assert run["name"].startswith("maintenance 20")
    assert (run["state_type"], run["state"]["message"].startswith(message)) == (state, True)
    assert [each.startswith(line or "") for each in run["lines"]] == ([] if line is None else [True])


def test_a_pass_without_an_answer_of_prefect_ends_without_an_error(
    services: Services, prefect_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    monkeypatch.setattr(maintenance_loop, "maintenance", lambda: ended("m: a promotion ended"))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        maintenance_loop.make_pass(services.settings.home)
    assert "not shown in Prefect" in capsys.readouterr().out


def test_the_loop_ends_once_the_installed_code_has_changed(
    services: Services, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stack").mkdir()
    assert not maintenance_loop.is_alive(tmp_path)
    passes = []
    codes = [{"code": 1}, {"code": 1}, {"code": 1}, {"code": 2}]
    monkeypatch.setattr(maintenance_loop, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(maintenance_loop, "code_times", lambda: codes.pop(0))
    monkeypatch.setattr(maintenance_loop, "make_pass", passes.append)
    maintenance_loop.make_passes(tmp_path)
    assert passes == [tmp_path, tmp_path]
    assert maintenance_loop.is_alive(tmp_path)
