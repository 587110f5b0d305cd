"""A home is backed up while it works, and restored at another path, where the same versions serve."""

import gzip
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import promoting
import psycopg
import pytest
from moved_homes import MODEL, locations, opened, retrain
from pydantic import SecretStr
from revisions import move
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action
from clm_core.domain.errors import AlreadyExists, BackupDamaged, BackupFailed, HomeUnfinished, RestoreRefused
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.ledger.migrations import HEAD, REVISIONS, pending, upgrade
from clm_core.ledger.schema import examine
from clm_core.market.bars import Bars
from clm_core.operations import restoring
from clm_core.operations.backup import BackupReport, write_backup
from clm_core.operations.restoring import HomeStores, RestoreReport, restore_home
from clm_core.platform import database_dumps
from clm_core.platform.backup_archive import extract, verify_archive
from clm_core.platform.database import open_database
from clm_core.registry.promotion import Promotions
from clm_core.services import Services
from clm_core.serving import load
from clm_core.settings import Settings

SCRIPTS = Path(__file__).parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import invariants  # noqa: E402 - a script beside the package

PREVIOUS_REVISION = REVISIONS[-2]
ADMIN = Actor(name="ada", role=Role.ADMIN)


def promote(services: Services, version: ModelVersion) -> None:
    promoting.promote(services, MODEL, version.version, ADMIN, "to trade", services.clock(), force=True)


def nothing(step: str, share: float) -> None:
    pass


def uncounted(count: int) -> None:
    pass


def backup(
    services: Services, target: Path, announce: Callable[[str, float], None] = nothing
) -> BackupReport:
    return write_backup(services.settings, target, announce)


def restore(file: Path, home: Path) -> RestoreReport:
    return restore_home(file, home, lambda home: HomeStores(), ADMIN, nothing)


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> Iterator[None]:
    """The block is interrupted where it calls a function."""

    def interrupt(*arguments: object, **options: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as changed, suppress(KeyboardInterrupt):
        changed.setattr(owner, name, interrupt)
        yield
        pytest.fail(f"{name} was not called")


def move_to(services: Services, version: ModelVersion) -> None:
    """Put a version into production, by a rollback if it was there before."""
    now = services.clock()
    if services.ledger.version(MODEL, version.version).status is ModelStatus.RETIRED:
        services.promotions.rollback(MODEL, ADMIN, "tested", now, to=version.version, force=True)
    elif services.ledger.promotions.champion(MODEL) != version.version:
        promote(services, version)


def positions_of(services: Services, version: ModelVersion) -> bytes:
    model = services.registry.load(version.model_path, version.bundle_digest)
    return model.positions(bars_of(services)).tobytes()


def bars_of(services: Services) -> Bars:
    return services.market.bars("EURUSD", "1h", days=120, closed_by=services.clock())


def positions(services: Services) -> bytes:
    served = load(MODEL, registry=services.registry, ledger=services.ledger)
    return served.positions(bars_of(services)).tobytes()


@pytest.fixture(scope="module")
def clm(make_home: Callable[[str], Path]) -> Iterator[Services]:
    """An open home with two versions, the first in production."""
    with opened(make_home("backed-up/A")) as services:
        promote(services, retrain(services, seed=1))
        retrain(services, seed=2)
        yield services


@pytest.fixture(scope="module")
def file(clm: Services, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("backups") / "clm.tar.gz"
    backup(clm, target)
    return target


@pytest.fixture
def elsewhere(clm: Services) -> Iterator[Path]:
    """Path for a restored home."""
    path = clm.settings.home.parent / "B"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_a_backup_taken_while_promotions_go_on_is_restored_elsewhere_and_serves(
    clm: Services, elsewhere: Path, tmp_path: Path
) -> None:
    versions = clm.ledger.versions(model_id=MODEL)
    expected = {version.version: positions_of(clm, version) for version in versions}
    ended = threading.Event()

    def promote_in_turn() -> None:
        while not ended.is_set():
            for version in versions:
                move_to(clm, version)

    at_work = threading.Thread(target=promote_in_turn)
    at_work.start()
    try:
        report = backup(clm, tmp_path / "clm.tar.gz")
    finally:
        ended.set()
        at_work.join()
    assert (report.versions, report.incomplete) == (2, ())
    restored = restore(report.file, elsewhere)
    assert (restored.versions, restored.problems, restored.applied) == (2, (), ())
    with opened(elsewhere) as services:
        champion = services.ledger.promotions.champion(MODEL)
        assert champion is not None
        assert positions(services) == expected[champion]
        assert invariants.violations(elsewhere, services.database.server) == []
        assert all(str(elsewhere) in location for location in locations(services.database))
        assert services.ledger.audit_after(report.audit_entries, 100)[-1].action == Action.HOME_RESTORED


def test_a_promotion_caught_half_way_is_ended_by_the_restoration_of_an_older_ledger(
    clm: Services, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [target] = [
        version
        for version in clm.ledger.versions(model_id=MODEL)
        if version.version != clm.ledger.promotions.champion(MODEL)
    ]
    with interrupted(monkeypatch, Promotions, "_finish"):
        move_to(clm, target)
    move(clm.database.url("ledger"), PREVIOUS_REVISION, down=True)
    try:
        report = backup(clm, tmp_path / "clm.tar.gz")
    finally:
        move(clm.database.url("ledger"), HEAD)
    with interrupted(monkeypatch, restoring, "settle"):
        restore(report.file, elsewhere)
    with pytest.raises(HomeUnfinished, match="was interrupted: repeat `clm restore`"), opened(elsewhere):
        pass
    restored = restore(report.file, elsewhere)
    assert (report.ledger_revision, restored.applied) == (PREVIOUS_REVISION, pending(PREVIOUS_REVISION))
    [sentence] = restored.ended
    assert sentence.endswith("is committed")
    with opened(elsewhere) as services:
        assert services.ledger.promotions.champion(MODEL) == target.version
        assert invariants.violations(elsewhere, services.database.server) == []


@pytest.mark.chaos
def test_a_ledger_of_every_earlier_revision_is_upgraded_with_its_data(
    clm: Services, file: Path, elsewhere: Path, tmp_path: Path
) -> None:
    extract(file, verify_archive(file, uncounted), lambda name: tmp_path / name, uncounted)
    versions = set(clm.ledger.promotions.numbers(MODEL))
    with open_database(elsewhere) as database:
        database_dumps.restore(database, "ledger", tmp_path / "databases" / "ledger.dump")
        for revision in reversed(REVISIONS[:-1]):
            move(database.url("ledger"), revision, down=True)
            with psycopg.connect(database.server, autocommit=True) as connection:
                connection.execute("DROP DATABASE IF EXISTS upgraded")
                connection.execute("CREATE DATABASE upgraded TEMPLATE clm_ledger")
            url = urlsplit(database.url("ledger"))._replace(path="/upgraded").geturl()
            assert upgrade(url) == pending(revision)
            assert examine(url).problems == ()
            with psycopg.connect(database.server.replace("/postgres?", "/upgraded?")) as connection:
                kept = connection.execute("SELECT version FROM model_versions").fetchall()
            assert {label for (label,) in kept} == versions


def test_a_damaged_backup_is_refused_by_name_before_anything_is_written(
    file: Path, elsewhere: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.tar.gz"
    contents = gzip.decompress(file.read_bytes())
    damaged.write_bytes(gzip.compress(contents.replace(b"objective", b"subjected", 1), 1))
    with pytest.raises(BackupDamaged, match=r"home/.*(json|txt) is missing, added or changed"):
        restore(damaged, elsewhere)
    assert not elsewhere.exists()


def test_a_home_in_use_is_not_restored_over(clm: Services, file: Path) -> None:
    with pytest.raises(RestoreRefused, match=r"A is not empty \(costs\.json, .*\)"):
        restore(file, clm.settings.home)


def test_databases_in_use_are_not_restored_over(clm: Services, file: Path, elsewhere: Path) -> None:
    in_use = SecretStr(clm.database.server)
    with pytest.raises(RestoreRefused, match="The database ledger of the server is in use"):
        restore_home(file, elsewhere, lambda home: HomeStores(in_use), ADMIN, nothing)
    assert list(elsewhere.iterdir()) == []


def test_a_backup_in_the_home_or_of_no_home_is_refused(clm: Services, tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="lies in the home"):
        backup(clm, clm.settings.home / "clm.tar.gz")
    with pytest.raises(BackupFailed, match="is no home of CLM"):
        write_backup(Settings(home=tmp_path), tmp_path.parent / "clm.tar.gz", nothing)


def test_the_command_names_what_is_left_out(
    clm: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(clm.settings.home))
    written = CliRunner().invoke(app, ["backup", str(tmp_path / "clm.tar.gz"), "--json"])
    assert written.exit_code == 0, written.output
    report = json.loads(written.stdout)
    assert [each["what"] for each in report["left_out"]] == ["Prefect's database"]
    again = CliRunner().invoke(app, ["backup", str(tmp_path / "clm.tar.gz")])
    assert isinstance(again.exception, AlreadyExists)
