"""Versions deleted in MLflow by hand are registered again from their files, and serve as before."""

import re
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import promoting
import pytest
from sqlalchemy import Engine, create_engine, text
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.actors import Actor
from clm_core.domain.alerts import AlertKind
from clm_core.domain.errors import FilesLost, NotAllowed, NotFound, RegistryUnavailable
from clm_core.domain.faults import Fault
from clm_core.domain.promotions import Promotion, PromotionKind, PromotionState, rollback_target
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.registry.restoration import Restorations, RestoredModel, previous_label
from clm_core.services import Services
from clm_core.serving import load

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
VIEWER, OPERATOR, ADMIN = (
    Actor(name=f"a {role}", role=role) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
)
CRASHES = [
    Fault.REGISTERED_AGAIN,
    Fault.NUMBER_RECORDED,
    Fault.AFTER_INTENT,
    Fault.AFTER_ALIAS,
    Fault.AFTER_TAGS,
    Fault.IN_COMMIT,
]
RESTORE = """
from clm_core.registry.restoration import Restorations
from clm_core.services import open_services
with open_services(settings) as services:
    Restorations(services.promotions).restore(**arguments)
"""
OVERLOOKS_INTERRUPTED = """
from clm_core.registry.deleted_versions import DeletedVersions
DeletedVersions._from_interrupted = lambda self, version, files: set()
"""

MakeVersion = Callable[..., ModelVersion]
Check = Callable[[str], None]


@dataclass(frozen=True)
class Served:
    """A model with two promoted versions; the second is in production."""

    services: Services
    model_id: str
    first: ModelVersion
    second: ModelVersion

    @property
    def client(self) -> Any:
        return self.services.registry.client

    def positions(self) -> tuple[int, bytes, bytes]:
        """Number in MLflow, and the positions as CLM's loader and MLflow's loader give them."""
        services = self.services
        bars = services.market.bars("BTCUSD", "1h", days=120, closed_by=NOW)
        served = load(self.model_id, registry=services.registry, ledger=services.ledger)
        table = bars.to_frame().reset_index()
        table["timestamp"] = table["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
        loaded = mlflow.pyfunc.load_model(f"models:/{self.model_id}@production")
        answered = loaded.predict(table)["position"].to_numpy()
        return served.mlflow_version, served.positions(bars).tobytes(), answered.tobytes()

    def restore(self, label: str | None = None, actor: Actor = ADMIN) -> RestoredModel:
        return Restorations(self.services.promotions).restore(self.model_id, label, actor, "tested", NOW)

    def champion(self) -> str | None:
        return self.services.ledger.promotions.champion(self.model_id)

    def numbers(self) -> list[int]:
        return sorted(self.services.ledger.promotions.numbers(self.model_id).values())


def serve(services: Services, make_version: MakeVersion, model_id: str) -> Served:
    first = make_version(model_id)
    second = make_version(model_id)
    for version in (first, second):
        promoting.promote(services, model_id, version.version, OPERATOR, "tested", NOW)
    return Served(services, model_id, first, second)


@pytest.fixture
def served(services: Services, make_version: MakeVersion, model_id: str) -> Served:
    return serve(services, make_version, model_id)


@pytest.fixture(scope="module")
def restorable_model(services: Services, make_version: MakeVersion) -> Served:
    return serve(services, make_version, "lightgbm_restorable_1h")


@pytest.fixture
def restorable(restorable_model: Served) -> Served:
    """A model for the tests that leave it restored in full."""

    def now(version: ModelVersion) -> ModelVersion:
        return restorable_model.services.ledger.version(version.model_id, version.version)

    return replace(restorable_model, first=now(restorable_model.first), second=now(restorable_model.second))


def delete_model(served: Served) -> None:
    served.client.delete_registered_model(served.model_id)


def delete_version(served: Served) -> None:
    served.client.delete_model_version(served.model_id, str(served.second.mlflow_version))


def delete_production_alias(served: Served) -> None:
    served.client.delete_registered_model_alias(served.model_id, "production")


def delete_label_and_previous(served: Served) -> None:
    served.client.delete_registered_model_alias(served.model_id, served.second.version)
    served.client.delete_registered_model_alias(served.model_id, "previous")


def delete_tags(served: Served) -> None:
    for name in ("clm.package", "clm.bundle_digest", "clm.status"):
        served.client.delete_model_version_tag(served.model_id, str(served.second.mlflow_version), name)


def delete_run(served: Served) -> None:
    served.client.delete_run(served.second.mlflow_run_id)


def delete_logged_model(served: Served) -> None:
    source = served.client.get_model_version(served.model_id, str(served.second.mlflow_version)).source
    served.client.delete_logged_model(source.removeprefix("models:/"))


def delete_experiment(served: Served) -> None:
    served.client.delete_experiment(served.client.get_experiment_by_name("clm").experiment_id)


def delete_everything(served: Served) -> None:
    delete_logged_model(served)
    delete_model(served)
    delete_experiment(served)


DELETIONS = [
    delete_model,
    delete_version,
    delete_production_alias,
    delete_label_and_previous,
    delete_tags,
    delete_run,
    delete_logged_model,
    delete_experiment,
    delete_everything,
]


@pytest.mark.parametrize("delete", DELETIONS, ids=lambda delete: delete.__name__)
def test_a_restored_model_gives_the_positions_of_before(
    delete: Callable[[Served], None], restorable: Served, check: Check, services: Services
) -> None:
    _, ours, theirs = restorable.positions()
    delete(restorable)
    restored = restorable.restore()
    assert restored.problems == ()
    assert restored.champion == restorable.second.version
    assert restorable.positions()[1:] == (ours, theirs)
    check(restorable.model_id)
    assert services.promotions.reconcile(restorable.model_id, OPERATOR, NOW) == []
    numbers = services.ledger.promotions.numbers(restorable.model_id)
    assert services.registry.aliases(restorable.model_id) == {
        "production": numbers[restorable.second.version],
        "previous": numbers[restorable.first.version],
        restorable.first.version: numbers[restorable.first.version],
        restorable.second.version: numbers[restorable.second.version],
    }
    for version in (restorable.first, restorable.second):
        assert restorable.client.get_run(version.mlflow_run_id).info.lifecycle_stage == "active"
    assert restorable.client.get_experiment_by_name("clm").lifecycle_stage == "active"
    again = restorable.restore()
    assert [each.restored for each in again.versions] == [(), ()]


def test_a_deleted_model_gets_its_former_numbers_back(served: Served) -> None:
    before = served.numbers()
    delete_model(served)
    served.restore()
    assert served.numbers() == before


def test_a_deleted_version_gets_a_new_number_which_the_ledger_and_the_audit_record(
    served: Served, audited: Callable[[str], list[str]], ledger_engine: Engine
) -> None:
    delete_version(served)
    [restored] = served.restore(served.second.version).versions
    assert restored.former_number == served.second.mlflow_version
    number = restored.version.mlflow_version
    assert number == served.second.mlflow_version + 1
    shown = served.client.get_model_version(served.model_id, str(number))
    _, verdict = served.services.ledger.evaluation(served.model_id, served.second.version)
    assert shown.description.startswith(verdict.headline)
    assert "restored by a admin: tested" in shown.description
    asked_by = served.services.ledger.job(served.second.training_job_id).requested_by
    assert (shown.user_id, shown.tags["clm.requested_by"]) == (asked_by, asked_by)
    assert served.services.ledger.version(
        served.model_id, served.second.version
    ) == restored.version.model_copy(update={"status": ModelStatus.PRODUCTION})
    assert audited(served.model_id)[-4:] == [
        "alias_moved",
        "production_lost",
        "version_restored",
        "production_restored",
    ]
    query = text("SELECT details FROM audit_log WHERE subject = :id AND action = 'version_restored'")
    with ledger_engine.begin() as connection:
        [details] = connection.scalars(query, {"id": served.model_id})
    assert (details["from_mlflow_version"], details["to_mlflow_version"]) == (
        restored.former_number,
        restored.version.mlflow_version,
    )


def test_a_number_never_stands_for_two_versions(
    served: Served, make_version: MakeVersion, check: Check
) -> None:
    delete_model(served)
    newer = make_version(served.model_id, now=NOW + timedelta(minutes=1), in_full=True)
    assert newer.mlflow_version > served.second.mlflow_version
    served.restore(served.second.version)
    served.restore(served.first.version)
    numbers = served.numbers()
    assert len(set(numbers)) == len(numbers) == 3
    check(served.model_id)


def test_a_build_that_takes_any_number_confuses_two_versions(
    served: Served, make_version: MakeVersion, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(client: Any, model_id: str, source: str, run_id: str, tags: Any, may_be: Any) -> Any:
        return client.create_model_version(model_id, source, run_id, tags=dict(tags))

    monkeypatch.setattr("clm_core.registry.mlflow_registry.numbered", first)
    with pytest.raises(AssertionError):
        test_a_number_never_stands_for_two_versions(served, make_version, check)


def test_a_foreign_version_under_the_number_of_a_deleted_version_never_serves(served: Served) -> None:
    source = served.client.get_model_version(served.model_id, str(served.first.mlflow_version)).source
    delete_model(served)
    served.client.create_registered_model(served.model_id)
    foreign = [
        int(served.client.create_model_version(served.model_id, source).version)
        for _ in range(served.second.mlflow_version)
    ]
    assert served.second.mlflow_version in foreign
    [loss] = served.services.promotions.reconcile(served.model_id, OPERATOR, NOW)
    assert loss.kind is PromotionKind.LOSS
    assert served.services.registry.aliased(served.model_id, "production") is None
    assert served.restore().champion == served.second.version
    assert served.positions()[0] not in foreign


def test_without_mlflow_s_entries_the_files_are_found_on_the_disk(served: Served, check: Check) -> None:
    _, ours, theirs = served.positions()
    delete_model(served)
    with create_engine(served.services.database.url("mlflow")).begin() as connection:
        for table in ("logged_model_tags", "logged_model_params", "logged_model_metrics", "logged_models"):
            of_run = "model_id IN (SELECT model_id FROM logged_models WHERE source_run_id = ANY (:runs))"
            runs = [served.first.mlflow_run_id, served.second.mlflow_run_id]
            connection.execute(text(f"DELETE FROM {table} WHERE {of_run}"), {"runs": runs})
    assert served.restore().problems == ()
    assert served.positions()[1:] == (ours, theirs)
    check(served.model_id)


@pytest.fixture
def folder(served: Served) -> Path:
    """Folder of the files of the second version."""
    source = served.client.get_model_version(served.model_id, str(served.second.mlflow_version)).source
    location = served.client.get_logged_model(source.removeprefix("models:/")).artifact_location
    return Path(location.removeprefix("file://"))


def change_weights(folder: Path) -> None:
    trees = folder / "artifacts" / "bundle" / "trees.txt"
    trees.write_bytes(trees.read_bytes() + b"\n")


def change_code(folder: Path) -> None:
    [code] = folder.glob("serving.py")
    code.write_text(code.read_text() + "\nprint('hello')\n")


def remove_files(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize(
    "damage", [change_weights, change_code, remove_files], ids=lambda damage: damage.__name__
)
def test_changed_or_missing_files_are_refused_before_anything_is_registered(
    damage: Callable[[Path], None], served: Served, folder: Path
) -> None:
    damage(folder)
    delete_version(served)
    with pytest.raises(FilesLost, match=r"docs/how-to/backup\.md"):
        served.restore(served.second.version)
    versions = served.client.search_model_versions(f"name = '{served.model_id}'")
    assert [int(each.version) for each in versions] == [served.first.mlflow_version]
    assert served.champion() is None
    assert served.services.ledger.version(served.model_id, served.second.version).mlflow_version == (
        served.second.mlflow_version
    )


def test_all_restores_what_can_be_restored_and_names_the_rest(served: Served, folder: Path) -> None:
    remove_files(folder)
    delete_model(served)
    restored = served.restore()
    assert [each.version.version for each in restored.versions] == [served.first.version]
    [problem] = restored.problems
    assert served.second.version in problem
    back = served.services.promotions.rollback(served.model_id, OPERATOR, "", NOW)
    assert back.to_version == served.first.version


def test_a_build_that_compares_no_digest_restores_changed_weights(
    served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clm_core.registry.deleted_versions.verify_bundle", lambda folder, digest: None)
    monkeypatch.setattr("clm_core.models.bundle.verify_bundle", lambda folder, digest: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_changed_or_missing_files_are_refused_before_anything_is_registered(
            change_weights, served, folder
        )


@pytest.mark.parametrize("fault", CRASHES, ids=str)
def test_a_restoration_killed_at_any_point_is_repeated(
    fault: Fault, restorable: Served, parent: Any, check: Check
) -> None:
    restore_after_a_kill(fault, delete_model, restorable, parent, check)


def test_a_restoration_killed_before_the_ledger_has_the_new_number_registers_no_second_version(
    restorable: Served, parent: Any, check: Check
) -> None:
    restore_after_a_kill(Fault.REGISTERED_AGAIN, delete_version, restorable, parent, check)


def test_a_build_that_overlooks_an_interrupted_registration_registers_the_version_twice(
    served: Served, parent: Any, check: Check
) -> None:
    with pytest.raises(AssertionError):
        restore_after_a_kill(
            Fault.REGISTERED_AGAIN, delete_version, served, parent, check, OVERLOOKS_INTERRUPTED
        )


def restore_after_a_kill(
    fault: Fault,
    delete: Callable[[Served], None],
    served: Served,
    parent: Any,
    check: Check,
    broken: str = "",
) -> None:
    _, ours, theirs = served.positions()
    delete(served)
    arguments = {"model_id": served.model_id, "label": None, "actor": ADMIN, "reason": "crash", "now": NOW}
    assert parent.run(RESTORE, fault, arguments=arguments) == -signal.SIGKILL
    assert parent.run(broken + RESTORE, None, arguments=arguments) == 0
    assert served.champion() == served.second.version
    assert served.positions()[1:] == (ours, theirs)
    check(served.model_id)
    versions = served.client.search_model_versions(f"name = '{served.model_id}'")
    assert sorted(int(each.version) for each in versions) == served.numbers()


def test_the_alert_about_a_loss_ends_and_its_advice_works_as_printed(
    served: Served, home: Path, services: Services
) -> None:
    _, ours, theirs = served.positions()
    delete_model(served)
    services.promotions.reconcile(served.model_id, OPERATOR, NOW)
    [alert] = [each for each in services.alerts.lasting() if each.subject == served.model_id]
    assert alert.kind is AlertKind.PRODUCTION_LOST
    [advice] = re.findall("`clm (.*?)`", alert.message)
    for listing in (["models"], ["show", f"{served.model_id}@{served.second.version}"]):
        shown = CliRunner().invoke(app, listing, env={"CLM_HOME": str(home)})
        assert shown.exit_code == 0
    assert "DELETED" in shown.stdout
    typed = CliRunner().invoke(app, shlex.split(advice), env={"CLM_HOME": str(home)})
    assert (typed.exit_code, typed.exception) == (0, None)
    assert f"{served.model_id}: {served.second.version} is in production again." in typed.stdout
    assert served.positions()[1:] == (ours, theirs)
    assert served.model_id not in {each.subject for each in services.alerts.lasting()}


def test_promotions_to_a_deleted_version_name_the_command_that_restores_it(served: Served) -> None:
    delete_model(served)
    with pytest.raises(RegistryUnavailable, match=f"clm restore-version {served.model_id}"):
        served.services.promotions.rollback(served.model_id, OPERATOR, "", NOW)
    served.restore(served.first.version)
    back = served.services.promotions.rollback(served.model_id, OPERATOR, "", NOW)
    assert back.to_version == served.first.version


def test_a_version_replaced_since_its_loss_is_restored_without_the_alias(
    served: Served, check: Check
) -> None:
    delete_version(served)
    served.services.promotions.reconcile(served.model_id, OPERATOR, NOW)
    served.services.promotions.rollback(served.model_id, OPERATOR, "", NOW)
    restored = served.restore(served.second.version)
    assert (restored.returned, restored.champion) == (None, served.first.version)
    check(served.model_id)


def test_a_forced_version_comes_back_as_forced_until_the_former_expiry(
    services: Services, make_version: MakeVersion, model_id: str, check: Check
) -> None:
    failed = make_version(model_id, sharpe=0.2)
    forced = promoting.promote(services, model_id, failed.version, ADMIN, "paper", NOW, force=True)
    served = Served(services, model_id, failed, failed)
    delete_model(served)
    with pytest.raises(NotAllowed, match="only an admin"):
        served.restore(failed.version, OPERATOR)
    returned = served.restore(failed.version).returned
    assert returned is not None
    assert (returned.forced, returned.expires_at) == (True, forced.expires_at)
    [expired] = [
        each
        for each in services.ledger.promotions.expired_forced(NOW + timedelta(days=8))
        if each.model_id == model_id
    ]
    assert expired.id == returned.id
    check(model_id)


def test_a_viewer_restores_nothing(served: Served) -> None:
    delete_version(served)
    with pytest.raises(NotAllowed):
        served.restore(served.second.version, VIEWER)


@pytest.mark.parametrize("label", [None, "v19700101_000000"])
def test_an_unknown_model_or_version_is_named(label: str | None, services: Services) -> None:
    with pytest.raises(NotFound, match="no_model_1h"):
        Restorations(services.promotions).restore("no_model_1h", label, ADMIN, "tested", NOW)


def change(before: str | None, after: str | None, kind: PromotionKind) -> Promotion:
    return Promotion(
        id=1,
        model_id="m",
        kind=kind,
        state=PromotionState.COMMITTED,
        from_version=before,
        to_version=after,
        actor="ada",
        role=Role.ADMIN,
        reason="",
        at=NOW,
        finished_at=NOW,
    )


def test_a_restored_version_stands_where_it_stood_in_the_line_of_rollbacks() -> None:
    history = [
        change(None, "A", PromotionKind.PROMOTION),
        change("A", "B", PromotionKind.PROMOTION),
        change("B", None, PromotionKind.LOSS),
        change(None, "B", PromotionKind.RESTORATION),
    ]
    assert rollback_target(history) == "A"
    assert previous_label(history) == "A"
    assert previous_label(history[:1]) is None
