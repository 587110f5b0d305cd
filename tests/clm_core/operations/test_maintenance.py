"""A maintenance pass finds and repairs defects, and alerts on the rest once."""

import json
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import promoting
import psycopg
import pytest
from installations import wait_until
from jobs import after, end_all_jobs
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr
from records import a_job
from secret_servers import SecretServer
from sqlalchemy import Engine, event, text
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.actors import Actor
from clm_core.domain.alerts import Alert, AlertKind, RaisedAlert
from clm_core.domain.errors import BundleCorrupt, NotAllowed, NotFound, PassIncomplete
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.operation_settings import GuardSettings, OnExpiry
from clm_core.domain.storage_settings import StorageSettings
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType, Role
from clm_core.ledger.promotions import PromotionStore
from clm_core.operations import maintenance
from clm_core.operations.maintenance import MaintenancePart, MaintenanceReport
from clm_core.platform.prefect_runs import DEPLOYMENTS_TAG, Run, Runs
from clm_core.platform.prefect_server import load_flow
from clm_core.retraining import jobs
from clm_core.services import Services
from clm_core.settings import Settings
from clm_core.triggers import inbox

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
REQUEST = RetrainRequest(
    model_type=ModelType.LIGHTGBM, symbol="BTCUSD", dataset_span_days=60, requested_by="tests"
)
ADMIN = Actor(name="ada", role=Role.ADMIN)
OPERATOR = Actor(name="otto", role=Role.OPERATOR)
MakeVersion = Callable[..., ModelVersion]
Audited = Callable[[str], list[str]]


@pytest.fixture(autouse=True)
def no_prefect_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


@pytest.fixture(autouse=True)
def models_of_the_test(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes look at the models that the test makes, not at the dozens of the tests before it."""
    every_model = PromotionStore.models
    earlier = set(services.ledger.promotions.models())
    monkeypatch.setattr(
        PromotionStore,
        "models",
        lambda store: [name for name in every_model(store) if name not in earlier],
    )


@pytest.fixture(autouse=True)
def no_pending_job(services: Services) -> None:
    end_all_jobs(services)


def promote(services: Services, version: ModelVersion, force: bool = False) -> None:
    promoting.promote(services, version.model_id, version.version, ADMIN, "tested", NOW, force=force)


def at(services: Services, moment: datetime, on_expiry: OnExpiry = OnExpiry.ASK) -> Services:
    settings = services.settings.model_copy(update={"guard": GuardSettings(on_expiry=on_expiry)})
    return replace(services, settings=settings, clock=lambda: moment)


def about(subject: str, report: MaintenanceReport, part: MaintenancePart) -> tuple[list[str], list[str]]:
    """Changes and problems of a part that concern a subject."""
    [part_report] = [each for each in report.parts if each.part is part]
    return [line for line in part_report.done if subject in line], [
        line for line in part_report.problems if subject in line
    ]


def alerted(services: Services, subject: str) -> list[RaisedAlert]:
    return [alert for alert in services.alerts.newest(500) if alert.subject == subject]


@pytest.fixture
def trees(services: Services) -> Iterator[Callable[[ModelVersion], Path]]:
    """Finds the stored trees of a version, and restores the content after the test."""
    before = dict[Path, bytes]()

    def find(version: ModelVersion) -> Path:
        client = services.registry._client
        source = client.get_model_version(version.model_id, str(version.mlflow_version)).source
        [path] = Path(services.settings.home, "mlflow").rglob(
            f"*{source.removeprefix('models:/')}*/**/trees.txt"
        )
        before[path] = path.read_bytes()
        return path

    yield find
    for path, content in before.items():
        path.write_bytes(content)


def test_an_alias_moved_by_hand_is_restored_and_alerted(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    serving = make_version(model_id)
    other = make_version(model_id)
    promote(services, serving)
    services.registry.point(model_id, "production", other.mlflow_version)
    done, problems = about(model_id, maintenance.run(services), MaintenancePart.RECONCILE)
    assert len(done) == 1
    assert problems == []
    assert services.registry.aliased(model_id, "production") == serving.mlflow_version
    assert [alert.kind for alert in alerted(services, model_id)] == [AlertKind.ALIAS_MOVED]


def test_an_expired_override_is_alerted_once_and_reported_by_every_pass(
    services: Services, make_version: MakeVersion, model_id: str, audited: Audited
) -> None:
    forced = make_version(model_id, sharpe=0.2)
    promote(services, forced, force=True)
    early = at(services, NOW + WEEK - timedelta(seconds=1))
    late = at(services, NOW + WEEK)
    assert about(model_id, maintenance.run(early), MaintenancePart.OVERRIDES) == ([], [])
    for _ in range(2):
        done, problems = about(model_id, maintenance.run(late), MaintenancePart.OVERRIDES)
        assert [f"clm confirm {model_id}" in line for line in done] == [True]
        assert problems == []
    assert [alert.kind for alert in alerted(services, model_id)] == [AlertKind.FORCED_EXPIRED]
    assert audited(model_id)[-1] == "forced_expired"
    assert audited(model_id).count("forced_expired") == 1


def test_a_training_in_progress_for_hours_is_alerted_until_it_ends(services: Services) -> None:
    job = services.ledger.create_job(a_job(symbol="SLOWUSD", created_at=NOW))
    lease = services.ledger.start_job(job.id, "tests", NOW, timedelta(hours=9))
    subject = str(job.id)

    def kinds(hours: float) -> list[AlertKind]:
        maintenance._alert_slow_trainings(at(services, NOW + timedelta(hours=hours)))
        return [alert.kind for alert in services.alerts.lasting() if alert.subject == subject]

    assert kinds(1.9) == []
    assert kinds(2.1) == [AlertKind.TRAINING_SLOW]
    services.ledger.fail_job(lease, "cancelled", NOW + timedelta(hours=3))
    assert kinds(3.1) == []


def test_an_override_confirmed_by_an_admin_expires_again_after_the_days(
    services: Services, make_version: MakeVersion, model_id: str, audited: Audited
) -> None:
    promote(services, make_version(model_id, sharpe=0.2), force=True)
    maintenance.run(at(services, NOW + WEEK))
    before = services.ledger.counts()
    confirm = services.promotions.confirm
    with pytest.raises(NotAllowed, match="only an admin"):
        confirm(model_id, 3, OPERATOR, "still needed", NOW + WEEK)
    with pytest.raises(NotAllowed, match="needs a reason"):
        confirm(model_id, 3, ADMIN, " ", NOW + WEEK)
    done = confirm(model_id, 3, ADMIN, "still needed", NOW + WEEK)
    assert (done.expires_at, done.confirmations) == (NOW + WEEK + timedelta(days=3), 1)
    assert services.ledger.counts().confirmations == before.confirmations + 1
    assert services.ledger.counts().forced == before.forced
    assert [alert.ended_at for alert in alerted(services, model_id)] == [NOW + WEEK]
    assert about(model_id, maintenance.run(at(services, NOW + WEEK)), MaintenancePart.OVERRIDES) == ([], [])
    maintenance.run(at(services, NOW + WEEK + timedelta(days=3)))
    assert len(alerted(services, model_id)) == 2
    assert audited(model_id)[-3:] == ["forced_expired", "forced_confirmed", "forced_expired"]


def test_a_promotion_that_was_not_forced_cannot_be_confirmed(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    promote(services, make_version(model_id))
    with pytest.raises(NotFound, match="was not forced"):
        services.promotions.confirm(model_id, 3, ADMIN, "because", NOW)


def test_an_expired_override_is_rolled_back_where_the_settings_say_so(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    check: Callable[[str], None],
    audited: Audited,
) -> None:
    good = make_version(model_id)
    forced = make_version(model_id, sharpe=0.2)
    promote(services, good)
    promote(services, forced, force=True)
    done, problems = about(
        model_id, maintenance.run(at(services, NOW + WEEK, OnExpiry.ROLL_BACK)), MaintenancePart.OVERRIDES
    )
    assert len(done) == 1
    assert problems == []
    assert services.ledger.promotions.champion(model_id) == good.version
    check(model_id)
    assert audited(model_id)[-1] == "rollback_committed"
    assert [alert.kind for alert in alerted(services, model_id)] == [AlertKind.FORCED_ROLLED_BACK]


def test_an_expired_override_without_a_version_to_roll_back_to_is_alerted(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    forced = make_version(model_id, sharpe=0.2)
    promote(services, forced, force=True)
    done, problems = about(
        model_id, maintenance.run(at(services, NOW + WEEK, OnExpiry.ROLL_BACK)), MaintenancePart.OVERRIDES
    )
    assert done == []
    assert ["nothing to roll back to" in line for line in problems] == [True]
    assert services.ledger.promotions.champion(model_id) == forced.version
    assert [alert.kind for alert in alerted(services, model_id)] == [AlertKind.FORCED_EXPIRED]
    services.promotions.confirm(model_id, 90, ADMIN, "for the other tests", datetime.now(UTC))


def test_a_changed_bundle_in_production_is_recorded_once_and_leaves_other_models_to_run(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    audited: Audited,
    trees: Callable[[ModelVersion], Path],
) -> None:
    broken = make_version(model_id)
    moved = make_version(other := f"{model_id}x".replace("_1hx", "x_1h"))
    promote(services, broken)
    promote(services, moved)
    stored = trees(broken)
    original = stored.read_bytes()
    stored.write_bytes(original + b"\n")
    services.registry.point(other, "production", None)
    for _ in range(2):
        report = maintenance.run(services)
        _, problems = about(model_id, report, MaintenancePart.VERIFY)
        assert ["trees.txt was changed" in line for line in problems] == [True]
        assert MaintenancePart.VERIFY in report.failed
    assert services.registry.aliased(other, "production") == moved.mlflow_version
    named = f"{model_id}@{broken.version}"
    assert [alert.kind for alert in alerted(services, named)] == [AlertKind.BUNDLE_REFUSED]
    assert audited(model_id)[1:] == ["bundle_refused"]
    stored.write_bytes(original)
    maintenance.run(services)
    assert [alert.kind for alert in services.alerts.lasting() if alert.subject == named] == []


def test_scheduled_maintenance_reads_files_once_a_round_and_refused_files_until_repaired(
    services: Services, make_version: MakeVersion, model_id: str, trees: Callable[[ModelVersion], Path]
) -> None:
    serving = make_version(model_id)
    promote(services, serving)

    def problems_after(after: timedelta, in_full: bool = False) -> list[str]:
        return about(model_id, maintenance.run(at(services, NOW + after), in_full), MaintenancePart.VERIFY)[1]

    none = timedelta()
    hour = timedelta(hours=1)
    assert problems_after(none) == []
    stored = trees(serving)
    original = stored.read_bytes()
    stored.write_bytes(original + b"\n")
    assert problems_after(none) == []
    assert len(problems_after(hour)) == 1
    stored.write_bytes(original)
    assert problems_after(hour) == []
    stored.write_bytes(original + b"\n")
    assert problems_after(hour) == []
    assert len(problems_after(hour, in_full=True)) == 1


def test_files_are_verified_where_they_are_and_a_link_to_the_same_content_is_refused(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    trees: Callable[[ModelVersion], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serving = make_version(model_id)
    promote(services, serving)
    copies = list[str]()
    monkeypatch.setattr(shutil, "copyfile", lambda source, *_, **__: copies.append(str(source)))

    def problems() -> list[str]:
        return about(model_id, maintenance.run(at(services, NOW), in_full=True), MaintenancePart.VERIFY)[1]

    assert problems() == []
    assert copies == []
    stored = trees(serving)
    elsewhere = stored.rename(tmp_path / stored.name)
    stored.symlink_to(elsewhere)
    [problem] = problems()
    assert f"{stored.name} is not a regular file" in problem
    elsewhere.replace(stored)
    assert problems() == []


def test_more_models_in_order_take_no_more_queries(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    clm = at(services, NOW)

    def queries() -> int:
        count = 0

        def counted(*_: object) -> None:
            nonlocal count
            count += 1

        maintenance.run(clm, in_full=False)
        event.listen(Engine, "before_cursor_execute", counted)
        maintenance.run(clm, in_full=False)
        event.remove(Engine, "before_cursor_execute", counted)
        return count

    promote(services, make_version(model_id))
    before = queries()
    for letter in "ab":
        promote(services, make_version(model_id.replace("usd_", f"usd{letter}_")))
    assert queries() == before


def test_scheduled_maintenance_verifies_a_new_production_version_and_every_listing(
    services: Services, make_version: MakeVersion, model_id: str, trees: Callable[[ModelVersion], Path]
) -> None:
    before = make_version(model_id)
    after = make_version(model_id)
    clm = at(services, NOW)
    promote(services, before)
    assert about(model_id, maintenance.run(clm, in_full=False), MaintenancePart.VERIFY)[1] == []
    promote(services, after)
    stored = trees(after)
    original = stored.read_bytes()
    stored.write_bytes(b"")
    [line] = about(model_id, maintenance.run(clm, in_full=False), MaintenancePart.VERIFY)[1]
    assert "trees.txt was changed" in line
    stored.write_bytes(original)
    assert about(model_id, maintenance.run(clm, in_full=False), MaintenancePart.VERIFY)[1] == []
    number = str(after.mlflow_version)
    listed = services.registry._tags(model_id, after.mlflow_version)
    services.registry._client.set_model_version_tag(model_id, number, "clm.package", "{}")
    [line] = about(model_id, maintenance.run(clm, in_full=False), MaintenancePart.VERIFY)[1]
    assert "the tag clm.package was changed" in line
    services.registry._client.set_model_version_tag(model_id, number, "clm.package", listed["clm.package"])


def test_every_refused_promotion_of_changed_bytes_is_in_the_audit_with_the_file(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    ledger_engine: Engine,
    trees: Callable[[ModelVersion], Path],
) -> None:
    version = make_version(model_id)
    stored = trees(version)
    stored.write_bytes(stored.read_bytes() + b"\n")
    for _ in range(2):
        with pytest.raises(BundleCorrupt):
            promote(services, version)
    query = text("SELECT actor, action, details FROM audit_log WHERE subject = :id ORDER BY seq DESC LIMIT 2")
    with ledger_engine.begin() as connection:
        entries = connection.execute(query, {"id": model_id}).all()
    assert [(entry.actor, entry.action) for entry in entries] == [("ada", "bundle_refused")] * 2
    assert "trees.txt was changed" in entries[0].details["finding"]
    assert entries[0].details["version"] == version.version


def test_the_command_names_the_failures_and_exits_with_1(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    trees: Callable[[ModelVersion], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    version = make_version(model_id)
    promote(services, version)
    stored = trees(version)
    stored.unlink()
    answer = CliRunner().invoke(app, ["maintenance", "--json"])
    report = MaintenanceReport.model_validate_json(answer.stdout)
    assert answer.exit_code == 1
    assert MaintenancePart.VERIFY in report.failed
    assert [
        "trees.txt is missing" in line for line in about(model_id, report, MaintenancePart.VERIFY)[1]
    ] == [True]
    alerts = CliRunner().invoke(app, ["alerts", "--lasting", "--json"])
    assert f"{model_id}@{version.version}" in [alert["subject"] for alert in json.loads(alerts.stdout)]


def test_the_former_command_names_the_new_one_on_stderr_and_runs_a_pass(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    answer = CliRunner().invoke(app, ["upkeep", "--json"])
    assert answer.stderr.splitlines()[0] == "clm upkeep is now clm maintenance"
    report = MaintenanceReport.model_validate_json(answer.stdout)
    assert [each.part for each in report.parts] == list(MaintenancePart)
    printed = CliRunner().invoke(app, ["maintenance"])
    assert report.headline.split(".")[0] in printed.stdout
    assert "upkeep" not in CliRunner().invoke(app, ["--help"]).stdout.split()


def test_the_flow_fails_if_and_only_if_a_part_failed(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    trees: Callable[[ModelVersion], Path],
    prefect_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # only the model of the test: other tests leave damaged versions in production
    monkeypatch.setattr(PromotionStore, "models", lambda _: [model_id])
    good = make_version(model_id)
    broken = make_version(model_id)
    promote(services, good)
    flow = load_flow("flows.maintenance.maintenance")
    assert flow().failed == ()
    promote(services, broken)
    trees(broken).write_bytes(b"")
    with pytest.raises(PassIncomplete, match=r"trees\.txt was changed"):
        flow()


def test_alerts_under_a_former_part_name_end_with_the_first_pass(services: Services) -> None:
    kind = AlertKind.MAINTENANCE_FAILING
    for subject in ("sweep", "drain", "guard", "watch"):
        services.alerts.record(Alert(kind=kind, subject=subject, message="failed", at=NOW))
    maintenance.run(services)
    assert {"sweep", "drain", "guard"}.isdisjoint(alert.subject for alert in services.alerts.lasting(kind))
    assert services.alerts.end(kind, "watch", NOW)


def test_a_message_is_answered_and_a_job_that_cannot_start_is_a_problem(services: Services) -> None:
    data = {"model_type": "lightgbm", "symbol": "EURUSD", "detector": "psi"}
    body = json.dumps({"type": "model.drift_detected", "data": data}).encode()
    inbox.receive(services, "monitor", "for the maintenance", body, NOW)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        report = maintenance.run(services)
    done, _ = about("lightgbm_eurusd_1h", report, MaintenancePart.DISPATCH)
    assert [line.split(" as job ")[0] for line in done] == ["lightgbm_eurusd_1h: accepted"]
    _, problems = about("1 jobs wait to be started", report, MaintenancePart.DISPATCH)
    assert len(problems) == 1


def test_an_automation_that_cannot_start_a_run_is_alerted_until_recovery(
    services: Services, prefect_url: str
) -> None:
    name = f"start what is not there {uuid4()}"
    with httpx.Client(base_url=prefect_url) as prefect:
        prefect.post("/automations/", json=start_a_missing_deployment(name)).raise_for_status()

        def has_failed() -> bool:
            # repeated: the server needs a moment to load the automation
            prefect.post("/events", json=[an_event("tests.happened")]).raise_for_status()
            return failed_actions(prefect, name)

        wait_until(has_failed)
    with temporary_settings({PREFECT_API_URL: prefect_url}):
        first = maintenance.run(services)
        again = maintenance.run(services)
        [line] = about(name, first, MaintenancePart.AUTOMATIONS)[0]
        assert line.startswith(f"{name}: ")
        assert about(name, again, MaintenancePart.AUTOMATIONS) == ([], [])
        [alert] = alerted(services, name)
        assert "Repair the action" in alert.message
        assert alert.ended_at is None
        later = replace(services, clock=lambda: services.clock() + timedelta(hours=2))
        maintenance.run(later)
    assert alerted(services, name)[0].ended_at is not None


@pytest.mark.parametrize(("state", "is_alerted"), [("COMPLETED", False), ("PENDING", True)], ids=str)
def test_an_action_on_a_run_is_alerted_only_while_the_run_has_not_ended(
    state: str, is_alerted: bool, services: Services, prefect_url: str
) -> None:
    name = f"change a run that is {state} {uuid4()}"
    event = f"tests.run.{uuid4()}"
    with httpx.Client(base_url=prefect_url) as prefect:
        flow = prefect.post("/flows/", json={"name": "tests"}).json()["id"]
        made = {"flow_id": flow, "state": {"type": state, "name": state.title()}}
        run_id = prefect.post("/flow_runs/", json=made).json()["id"]
        target = "CRASHED" if state == "COMPLETED" else state
        automation = change_a_run(name, event, target)
        prefect.post("/automations/", json=automation).raise_for_status()

        def has_failed() -> bool:
            about_run = an_event(event) | {"resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"}}
            prefect.post("/events", json=[about_run]).raise_for_status()
            return failed_actions(prefect, name)

        wait_until(has_failed)
    with temporary_settings({PREFECT_API_URL: prefect_url}):
        report = maintenance.run(services)
    assert bool(about(name, report, MaintenancePart.AUTOMATIONS)[0]) is is_alerted
    assert bool(alerted(services, name)) is is_alerted


def change_a_run(name: str, event: str, state: str) -> dict[str, object]:
    trigger = {"type": "event", "posture": "Reactive", "expect": [event], "threshold": 1, "within": 0}
    return {
        "name": name,
        "trigger": trigger,
        "actions": [{"type": "change-flow-run-state", "state": state, "name": state.title()}],
    }


def start_a_missing_deployment(name: str) -> dict[str, object]:
    return {
        "name": name,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "expect": ["tests.happened"],
            "threshold": 1,
            "within": 0,
        },
        "actions": [{"type": "run-deployment", "source": "inferred", "parameters": None}],
    }


def an_event(name: str) -> dict[str, object]:
    return {
        "id": str(uuid4()),
        "event": name,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": "tests.thing"},
    }


def failed_actions(prefect: httpx.Client, name: str) -> bool:
    query = {"event": {"name": ["prefect.automation.action.failed"]}}
    events = prefect.post("/events/filter", json={"filter": query}).json()["events"]
    return any(event["resource"]["prefect.resource.name"] == name for event in events)


def test_a_failed_run_without_a_job_is_alerted_once_until_the_deployment_recovers(
    services: Services, prefect_url: str
) -> None:
    name = f"imports what is not there {uuid4()}"
    with httpx.Client(base_url=prefect_url) as prefect:
        flow = prefect.post("/flows/", json={"name": "tests"}).json()["id"]
        made = {"name": name, "flow_id": flow, "tags": [DEPLOYMENTS_TAG]}
        deployment = prefect.post("/deployments/", json=made).json()["id"]
        for state in ("FAILED", "CRASHED"):
            run = prefect.post(f"/deployments/{deployment}/create_flow_run", json={}).json()["id"]
            state_of_run = {"type": state, "name": state.title(), "message": "ModuleNotFoundError: talib"}
            forced = {"state": state_of_run, "force": True}
            prefect.post(f"/flow_runs/{run}/set_state", json=forced).raise_for_status()
        with temporary_settings({PREFECT_API_URL: prefect_url}):
            first = maintenance.run(services)
            again = maintenance.run(services)
            later = replace(services, clock=lambda: services.clock() + timedelta(hours=4))
            [alert] = alerted(services, name)
            maintenance.run(later)
        prefect.delete(f"/deployments/{deployment}").raise_for_status()
    [line] = about(name, first, MaintenancePart.AUTOMATIONS)[0]
    assert f"Run {run} ended as Crashed: ModuleNotFoundError: talib" in line
    assert about(name, again, MaintenancePart.AUTOMATIONS) == ([], [])
    assert (alert.kind, alert.ended_at) == (AlertKind.RUN_FAILED, None)
    assert alerted(services, name)[0].ended_at is not None


def test_the_run_of_a_reaped_job_is_marked_as_crashed(services: Services, prefect_url: str) -> None:
    with httpx.Client(base_url=prefect_url) as prefect:
        flow = prefect.post("/flows/", json={"name": "tests"}).json()["id"]
        running = {"type": "RUNNING", "name": "Running"}
        run_id = prefect.post("/flow_runs/", json={"flow_id": flow, "state": running}).json()["id"]
        job = jobs.open_job(services, REQUEST)
        services.ledger.triggers.set_run(job.id, UUID(run_id), services.clock())
        services.ledger.start_job(job.id, "a process that dies", services.clock(), timedelta(seconds=1))
        with temporary_settings({PREFECT_API_URL: prefect_url}):
            report = maintenance.run(after(services, minutes=5))
        assert about(run_id, report, MaintenancePart.REAP)[0] == [f"run {run_id} of job {job.id} has crashed"]
        assert prefect.get(f"/flow_runs/{run_id}").json()["state_type"] == "CRASHED"


def test_a_run_that_completes_before_it_is_crashed_stays_completed_and_pages_nobody(
    services: Services, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Runs.read
    with httpx.Client(base_url=prefect_url) as prefect:
        flow = prefect.post("/flows/", json={"name": "tests"}).json()["id"]
        running = {"type": "RUNNING", "name": "Running"}
        run_id = prefect.post("/flow_runs/", json={"flow_id": flow, "state": running}).json()["id"]
        job = jobs.open_job(services, REQUEST)
        services.ledger.triggers.set_run(job.id, UUID(run_id), services.clock())
        services.ledger.start_job(job.id, "a process that dies", services.clock(), timedelta(seconds=1))

        def read_and_complete(runs: Runs, run_ids: Collection[UUID]) -> dict[UUID, Run]:
            answer = read(runs, run_ids)
            completed = {"state": {"type": "COMPLETED", "name": "Completed"}}
            prefect.post(f"/flow_runs/{run_id}/set_state", json=completed).raise_for_status()
            return answer

        monkeypatch.setattr(Runs, "read", read_and_complete)
        with temporary_settings({PREFECT_API_URL: prefect_url}):
            report = maintenance.run(after(services, minutes=5))
        assert about(run_id, report, MaintenancePart.REAP) == ([], [])
        assert prefect.get(f"/flow_runs/{run_id}").json()["state_type"] == "COMPLETED"
    assert alerted(services, run_id) == []


def test_an_unreadable_secret_is_alerted_until_it_can_be_read(
    services: Services, bao: SecretServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", bao.token())
    path = bao.new_path(other="")
    secrets = [f"vault://{path}#webhook"]

    def secrets_of_a_new_process() -> Services:
        webhooks = {"monitor": {"style": "github", "secrets": secrets}}
        settings = Settings(home=services.settings.home, vault=bao.settings(), webhooks=webhooks)
        return replace(services, settings=settings)

    _, problems = about(path, maintenance.run(secrets_of_a_new_process()), MaintenancePart.SECRETS)
    refusal = f"secret: webhooks.monitor.secrets.0 is {secrets[0]}, which cannot be read"
    assert [line.partition(":")[2].partition(": the")[0] for line in problems] == [refusal.partition(":")[2]]
    [alert] = [each for each in services.alerts.lasting() if each.subject == "secrets"]
    assert path in alert.message
    bao.write(path, webhook="twenty-four characters and more")
    report = maintenance.run(secrets_of_a_new_process())
    assert MaintenancePart.SECRETS not in report.failed
    assert "secrets" not in [each.subject for each in services.alerts.lasting()]


def test_a_bucket_without_an_answer_is_alerted_until_it_answers(services: Services) -> None:
    silent = StorageSettings(
        url="s3://bars",
        endpoint="http://127.0.0.1:9",
        access_key=SecretStr("key"),
        secret_key=SecretStr("secret"),
    )
    away = replace(services, settings=services.settings.model_copy(update={"storage": silent}))
    storage = MaintenancePart.STORAGE
    [problem] = maintenance._run_part(away, storage, maintenance._look_for_storage).problems
    assert problem.startswith(
        "bucket: The storage could not list s3://bars: http://127.0.0.1:9 does not answer"
    )
    assert problem in [each.message.partition("\n")[0] for each in services.alerts.lasting()]
    assert maintenance._run_part(services, storage, maintenance._look_for_storage).problems == ()
    assert "storage" not in [each.subject for each in services.alerts.lasting()]


def test_an_edited_entry_of_the_audit_is_alerted_until_it_is_right_again(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the whole log, however many entries other tests have added
    monkeypatch.setattr(maintenance, "ENTRIES_READ", 1_000_000)

    def write_actor(actor: str) -> None:
        with psycopg.connect(services.database.address("ledger")) as connection:
            connection.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")
            connection.execute("UPDATE audit_log SET actor = %s WHERE seq = 1", [actor])
            connection.execute("ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_append_only")

    def broken() -> list[str]:
        maintenance.run(services)
        return [alert.subject for alert in services.alerts.lasting(AlertKind.AUDIT_BROKEN)]

    jobs.open_job(services, REQUEST)
    end_all_jobs(services)
    [first] = services.ledger.audit_after(0, 1)
    write_actor("mallory")
    try:
        assert [broken(), broken()] == [["entry 1"], ["entry 1"]]
    finally:
        write_actor(first.actor)
    assert broken() == []
