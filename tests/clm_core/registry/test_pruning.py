"""Files of failed versions are removed by `clm prune`, and nothing else is."""

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import promoting
import psycopg
import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action
from clm_core.domain.errors import ConflictError, FilesLost, PromotionRefused
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.ledger import audit_log
from clm_core.platform.database_dumps import consistent_cut
from clm_core.registry import pruning
from clm_core.registry.pruning import Pruning
from clm_core.registry.restoration import Restorations
from clm_core.services import Services

SCRIPTS = Path(__file__).parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import invariants  # noqa: E402 - a script beside the package

MADE = datetime(2020, 3, 4, 12, tzinfo=UTC)
"""Time at which the versions of these tests are made: no other version is so old."""
NOW = MADE + timedelta(days=40)
MONTH = timedelta(days=30)
ADMIN = Actor(name="ada", role=Role.ADMIN)
MakeVersion = Callable[..., ModelVersion]


@pytest.fixture
def pruner(services: Services) -> Pruning:
    return Pruning(services.settings.home, services.database, services.ledger)


@pytest.fixture
def failed(make_version: MakeVersion, model_id: str) -> ModelVersion:
    version = make_version(model_id, sharpe=-1.0, now=MADE)
    assert version.status is ModelStatus.FAILED
    return version


def names(pruned: list[pruning.PrunedVersion], model_id: str) -> list[str]:
    return [version.version for version in pruned if version.model_id == model_id]


def verify(services: Services, version: ModelVersion) -> None:
    services.registry.verify(
        version.model_id, version.mlflow_version, version.bundle_digest, version.package_digest
    )


def broken(services: Services, version: ModelVersion) -> list[str]:
    breaches = invariants.violations(services.settings.home, services.database.server)
    return [each.invariant for each in breaches if f"{version.model_id} {version.version}" in each.message]


def test_only_old_failed_versions_that_never_served_lose_their_files(
    services: Services, pruner: Pruning, make_version: MakeVersion, model_id: str, failed: ModelVersion
) -> None:
    candidate = make_version(model_id, now=MADE)
    served = make_version(model_id, sharpe=-1.0, now=MADE)
    young = make_version(model_id, sharpe=-1.0, now=NOW - timedelta(days=1))
    champion = make_version(model_id, now=MADE)
    for version in (served, champion):
        promoting.promote(services, model_id, version.version, ADMIN, "tested", NOW, force=True)
    planned = pruner.plan(MONTH, NOW)
    assert names(planned, model_id) == [failed.version]
    [plan] = [version for version in planned if version.model_id == model_id]
    assert plan.files >= 4
    assert plan.size > 1_000
    verify(services, failed)
    assert pruner.prune(MONTH, ADMIN, NOW) == planned
    assert pruner.plan(MONTH, NOW) == []
    for version in (candidate, served, young, champion):
        verify(services, version)
        assert broken(services, version) == []


def test_a_version_without_files_keeps_its_records_and_cannot_serve(
    services: Services, pruner: Pruning, failed: ModelVersion
) -> None:
    pruner.prune(MONTH, ADMIN, NOW)
    ledger = services.ledger
    assert ledger.version(failed.model_id, failed.version) == failed
    removed = ledger.removed_files.of(failed.model_id, failed.version)
    assert removed is not None
    assert (removed.by, removed.at) == ("ada", NOW)
    newest = audit_log.entries(ledger._engine, failed.model_id, limit=1)[0]
    assert (newest.action, newest.actor) == (Action.FILES_REMOVED, "ada")
    assert newest.details == {"version": failed.version, "files": removed.files, "size": removed.size}
    assert broken(services, failed) == []
    with pytest.raises(PromotionRefused, match=r"the files \(\d+\.\d MB\) were removed by ada on 2020-04-13"):
        promoting.promote(services, failed.model_id, failed.version, ADMIN, "tested", NOW, force=True)
    with pytest.raises(FilesLost, match=r"cannot be loaded: the files .* were removed by ada"):
        Restorations(services.promotions).restore(failed.model_id, failed.version, ADMIN, "tested", NOW)
    restored = Restorations(services.promotions).restore(failed.model_id, None, ADMIN, "tested", NOW)
    assert (restored.versions, restored.problems) == ((), ())


def test_the_newest_version_of_a_recipe_with_evidence_keeps_its_files(
    services: Services, pruner: Pruning, make_version: MakeVersion, model_id: str, failed: ModelVersion
) -> None:
    newer = make_version(model_id, sharpe=-1.0, now=MADE + timedelta(days=1))
    with psycopg.connect(services.database.address("ledger")) as connection:
        named = "UPDATE model_versions SET recipe_digest = %s WHERE model_id = %s"
        connection.execute(named, [model_id, model_id])
    assert names(pruner.plan(MONTH, NOW), model_id) == []
    with psycopg.connect(services.database.address("ledger")) as connection:
        connection.execute(
            "INSERT INTO evaluation_evidence SELECT id, 'd', 'x', 'd', 'c' FROM evaluations "
            "WHERE model_id = %s AND version = %s",
            [model_id, newer.version],
        )
    assert names(pruner.plan(MONTH, NOW), model_id) == [failed.version]


def test_an_interrupted_removal_is_finished_by_the_next_and_recorded_once(
    services: Services, pruner: Pruning, failed: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pruning.shutil, "rmtree", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pruner.prune(MONTH, ADMIN, NOW)
    monkeypatch.undo()
    assert names(pruner.prune(MONTH, ADMIN, NOW), failed.model_id) == [failed.version]
    assert pruner.plan(MONTH, NOW) == []
    entries = audit_log.entries(services.ledger._engine, failed.model_id)
    assert [entry.action for entry in entries].count(Action.FILES_REMOVED) == 1


def test_nothing_is_removed_while_a_backup_is_written(
    services: Services, pruner: Pruning, failed: ModelVersion
) -> None:
    with consistent_cut(services.database), pytest.raises(ConflictError, match="A backup or another"):
        pruner.prune(MONTH, ADMIN, NOW)
    verify(services, failed)


def test_the_command_removes_nothing_without_yes(
    services: Services, failed: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    listed = CliRunner().invoke(app, ["prune", "--older-than", "1000"])
    assert listed.exit_code == 0, listed.output
    assert failed.version in listed.output
    assert re.search(r"Files of \d failed versions would be removed by --yes: \d\.\d MB", listed.output)
    verify(services, failed)
    removed = CliRunner().invoke(app, ["prune", "--older-than", "1000", "--yes", "--json"])
    assert f'"version": "{failed.version}"' in removed.stdout
    shown = CliRunner().invoke(app, ["show", f"{failed.model_id}@{failed.version}"])
    assert "were removed by" in shown.output


def test_the_application_cannot_change_a_recorded_removal(services: Services) -> None:
    with psycopg.connect(services.database.address("ledger")) as connection:
        connection.execute("SET ROLE clm_app")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM removed_files")
