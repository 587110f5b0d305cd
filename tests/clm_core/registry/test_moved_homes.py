"""Homes that are moved or copied, with the embedded server and with a server of two homes."""

import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import promoting
import psycopg
import pytest
from moved_homes import MODEL, locations, opened, retrain

from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action
from clm_core.domain.errors import BundleCorrupt, HomeMismatch, StackRunning
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.ledger import audit_log
from clm_core.platform.database import Database, open_database
from clm_core.platform.home_record import FILE, HomeRecord, is_settled
from clm_core.platform.stack_state import StackState, stack_lock, write_state
from clm_core.registry.locations import COLUMNS, artifacts_folder, is_inside
from clm_core.services import Services, settle_home
from clm_core.serving import load

ADMIN = Actor(name="ada", role=Role.ADMIN)
AWKWARD = "a home, 100% ümlaut #2"


def promote(services: Services, version: ModelVersion) -> None:
    promoting.promote(services, MODEL, version.version, ADMIN, "to trade", services.clock(), force=True)


def positions_by_both_loaders(services: Services) -> None:
    """Loads the production version by both loaders, and compares the positions."""
    bars = services.market.bars("EURUSD", "1h", days=120, closed_by=services.clock())
    served = load(MODEL, registry=services.registry, ledger=services.ledger)
    mlflow.set_tracking_uri(services.database.url("mlflow"))
    mlflow.set_registry_uri(services.database.url("mlflow"))
    frame = pd.DataFrame(
        {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")},
    ).assign(timestamp=pd.to_datetime(bars.time, utc=True))
    predicted = mlflow.pyfunc.load_model(f"models:/{MODEL}@production").predict(frame)
    np.testing.assert_array_equal(predicted["position"], served.positions(bars))


def files(home: Path) -> dict[str, bytes]:
    """Content of every file of a home but the server's."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and not path.relative_to(home).parts[0].startswith("postgres")
    }


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "clm.home"]


def copy(home: Path, to: Path) -> Path:
    """A copy as by `cp -a`: times and owners are kept."""
    subprocess.run(["cp", "-a", str(home), str(to)], check=True)
    return to


@pytest.fixture(scope="module")
def folder(make_home: Callable[[str], Path]) -> Path:
    return make_home("moved/A").parent


class MovingHome:
    """A home that tests move about: a move costs nothing, where a copy costs 100 MB."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def to(self, name: str) -> Path:
        self.path = self.path.rename(self.path.parent / name)
        return self.path


@pytest.fixture(scope="module")
def moving(folder: Path) -> MovingHome:
    """A home with a production version, made at the path A."""
    with opened(folder / "A") as services:
        promote(services, retrain(services, seed=1))
    return MovingHome(folder / "A")


def test_a_moved_home_loads_retrains_and_promotes_and_writes_nothing_to_the_former_path(
    moving: MovingHome, caplog: pytest.LogCaptureFixture
) -> None:
    former = moving.path
    home = moving.to(AWKWARD)
    with caplog.at_level(logging.WARNING, "clm.home"), opened(home) as services:
        positions_by_both_loaders(services)
        promote(services, retrain(services, seed=2))
        positions_by_both_loaders(services)
        assert all(is_inside(location, artifacts_folder(home)) for location in locations(services.database))
        [entry] = [
            entry
            for entry in audit_log.entries(services.ledger._engine, limit=50)
            if entry.action == Action.HOME_MOVED
        ]
        assert (entry.details["from"], entry.details["to"]) == (str(former), str(home))
    assert messages(caplog) == [
        f"The home {home} was moved or copied from {former}: versions are now read and written under "
        "the new path."
    ]
    assert not former.exists()


def test_a_retrain_in_a_copy_writes_nothing_to_the_original(moving: MovingHome, folder: Path) -> None:
    home = moving.to("B")
    with opened(home):
        pass
    before = files(home)
    copied = copy(home, folder / "C")
    with opened(copied) as services:
        promote(services, retrain(services, seed=3))
        positions_by_both_loaders(services)
    shutil.rmtree(copied)
    assert files(home) == before
    with opened(home) as services:
        positions_by_both_loaders(services)
        assert len(services.ledger.versions(model_id=MODEL, limit=9)) == 2


def test_a_tampered_bundle_is_refused_after_the_move(moving: MovingHome) -> None:
    home = moving.to("D")
    kept = {trees: trees.read_bytes() for trees in home.rglob("trees.txt")}
    for trees, content in kept.items():
        trees.write_bytes(content + b" ")
    with opened(home) as services:
        with pytest.raises(BundleCorrupt, match=r"trees\.txt was changed"):
            load(MODEL, registry=services.registry, ledger=services.ledger)
        for trees, content in kept.items():
            trees.write_bytes(content)
        positions_by_both_loaders(services)


def test_a_settled_home_is_opened_without_a_question_to_mlflow(
    moving: MovingHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = moving.path
    with opened(home) as services:
        assert is_settled(home, services.database)
    monkeypatch.setattr("clm_core.services.settle", None)
    with opened(Path(f"{home}/")), opened(Path(os.path.relpath(home))):
        pass


def test_a_home_under_a_symlink_is_the_same_home(
    moving: MovingHome, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(moving.path):
        pass
    link = folder / "link"
    link.symlink_to(moving.path)
    with caplog.at_level(logging.WARNING, "clm.home"), opened(link) as services:
        positions_by_both_loaders(services)
        retrain(services, seed=4)
    assert messages(caplog) == []
    with opened(moving.path) as services:
        positions_by_both_loaders(services)


def test_two_commands_at_once_move_the_locations_once(
    moving: MovingHome, caplog: pytest.LogCaptureFixture
) -> None:
    before = HomeRecord.read(moving.path)
    home = moving.to("E")
    with caplog.at_level(logging.WARNING, "clm.home"), open_database(home) as database:
        threads = [threading.Thread(target=settle_home, args=(home, database)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert is_settled(home, database)
    assert len(messages(caplog)) == 1
    after = HomeRecord.read(home)
    assert before is not None
    assert after is not None
    assert after.id != before.id


def test_a_registration_outside_the_home_is_refused_until_the_home_takes_the_versions_over(
    moving: MovingHome, folder: Path
) -> None:
    home = moving.path
    with opened(home) as services:
        # a restored database: the record agrees with the path, the locations do not
        with psycopg.connect(services.database.url("mlflow").replace("+psycopg", "")) as connection:
            connection.execute(
                "UPDATE experiments SET artifact_location = %s WHERE name = 'clm'",
                [artifacts_folder(folder / "gone").as_uri()],
            )
        with pytest.raises(HomeMismatch, match=r"gone/mlflow/artifacts, outside the home in force"):
            retrain(services, seed=5)
        with pytest.raises(HomeMismatch, match=r"remove .*/home\.json and run `clm models`"):
            services.registry.connect()
    assert not (folder / "gone").exists()
    (home / FILE).unlink()
    with opened(home) as services:
        retrain(services, seed=5)


def test_a_process_whose_home_was_moved_meanwhile_registers_nothing(moving: MovingHome) -> None:
    home = moving.path
    with opened(home) as services:
        moving.to("H")
        with pytest.raises(HomeMismatch, match="was moved or removed while this process ran"):
            services.registry.connect()
        moving.to(home.name)


def test_a_home_is_not_taken_over_while_its_stack_runs(moving: MovingHome) -> None:
    home = moving.to("I")
    with stack_lock(home):
        state = StackState(
            pid=1, started_at=datetime(2026, 1, 1, tzinfo=UTC), prefect_url="http://x", mlflow_url="http://y"
        )
        write_state(home, state)
        with pytest.raises(StackRunning, match="end it with `clm down`"), opened(home):
            pass
    with opened(home) as services:
        positions_by_both_loaders(services)


def test_a_path_too_long_for_mlflow_is_refused_and_changes_nothing(moving: MovingHome) -> None:
    home = moving.to("ü" * 60)
    with pytest.raises(HomeMismatch, match="too long for MLflow"), opened(home):
        pass
    with opened(moving.to("J")) as services:
        positions_by_both_loaders(services)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give files away")
def test_a_copy_by_root_that_lost_the_owner_of_the_data_starts_its_server(moving: MovingHome) -> None:
    for path in (moving.path / "postgres", *(moving.path / "postgres").rglob("*")):
        os.chown(path, 0, 0)
    with opened(moving.to("K")) as services:
        positions_by_both_loaders(services)


def test_versions_that_release_0_1_0_wrote_to_the_former_path_are_copied_into_the_home(
    moving: MovingHome, caplog: pytest.LogCaptureFixture
) -> None:
    former = moving.path
    with opened(former):
        pass
    # as release 0.1.0 did: the database names a former path, where a retrain after the move put its files
    home = moving.to("M")
    (home / FILE).unlink()
    newest = max(artifacts_folder(home).glob("models/m-*"), key=lambda path: path.stat().st_mtime)
    stray = artifacts_folder(former) / "models" / newest.name
    stray.parent.mkdir(parents=True)
    newest.rename(stray)
    before = files(former)
    with caplog.at_level(logging.WARNING, "clm.home"), opened(home) as services:
        assert newest.is_dir()
        for stored in services.ledger.versions(model_id=MODEL, limit=9):
            services.promotions.verify(stored, ADMIN, services.clock())
    assert messages(caplog)[0].endswith(
        "1 folders of artifacts that were only at the former path were copied."
    )
    record = HomeRecord.read(home)
    assert record is not None
    assert record.made_by is None
    assert files(former) == before


@pytest.fixture(scope="module")
def shared(folder: Path, make_home: Callable[[str], Path]) -> Iterator[tuple[Database, Path]]:
    """A server of its own for the home S1, with a production version."""
    with open_database(make_home("moved/server")) as server:
        with opened(folder / "S1", server) as services:
            promote(services, retrain(services, seed=6))
        yield server, folder / "S1"


def test_a_copy_that_shares_the_database_with_its_original_is_refused_until_the_original_is_gone(
    shared: tuple[Database, Path], folder: Path
) -> None:
    server, home = shared
    copied = copy(home, folder / "S2")
    with (
        pytest.raises(HomeMismatch, match=f"{copied} is a copy of the home {home}, and both use"),
        opened(copied, server),
    ):
        pass
    with opened(home, server) as services:
        positions_by_both_loaders(services)
    home.rename(folder / "aside")
    with opened(copied, server) as services:
        positions_by_both_loaders(services)
        retrain(services, seed=7)
    # the original was away, on another machine for example: the copy has the versions now
    (folder / "aside").rename(home)
    before = files(home)
    with opened(home, server) as services, pytest.raises(HomeMismatch, match="outside the home in force"):
        retrain(services, seed=8)
    assert {name for name in files(home) if name.startswith("mlflow")} == {
        name for name in before if name.startswith("mlflow")
    }
    shutil.rmtree(home)
    copied.rename(home)
    with opened(home, server) as services:
        positions_by_both_loaders(services)


def test_another_home_on_a_shared_database_reads_but_registers_nothing(
    shared: tuple[Database, Path], folder: Path
) -> None:
    server, home = shared
    other = folder / "other"
    before = files(home)
    with opened(other, server) as services:
        assert services.ledger.versions(model_id=MODEL, limit=9)
        positions_by_both_loaders(services)
        with pytest.raises(HomeMismatch, match="set CLM_HOME to the other home"):
            retrain(services, seed=9)
    assert files(home) == before
    with opened(home, server) as services:
        positions_by_both_loaders(services)


def test_a_copy_of_release_0_1_0_is_refused_too(shared: tuple[Database, Path], folder: Path) -> None:
    server, home = shared
    copied = copy(home, folder / "S3")
    records = (home / FILE, copied / FILE)
    kept = records[0].read_bytes()
    for record in records:
        record.unlink()
    with psycopg.connect(server.url("mlflow").replace("+psycopg", "")) as connection:
        connection.execute("DELETE FROM experiment_tags")
    with pytest.raises(HomeMismatch, match="is a copy of the home"), opened(copied, server):
        pass
    records[0].write_bytes(kept)


def test_every_column_with_locations_is_a_column_of_mlflow(shared: tuple[Database, Path]) -> None:
    server, _ = shared
    with psycopg.connect(server.url("mlflow").replace("+psycopg", "")) as connection:
        present = connection.execute("SELECT table_name, column_name FROM information_schema.columns")
        assert set(COLUMNS) <= set(present.fetchall())


def test_a_new_home_records_its_release_and_an_older_home_none(tmp_path: Path) -> None:
    shared = Database("postgresql://clm:secret@db.example/postgres")
    record = HomeRecord.fresh(tmp_path, shared)
    assert (record.made_by, record.database) == (version("continuous-learning-manager"), "db.example:5432")
    (tmp_path / "audit").mkdir()
    assert HomeRecord.fresh(tmp_path, shared).made_by is None


@pytest.mark.parametrize(
    ("location", "inside"),
    [
        ("file:///srv/clm/mlflow/artifacts/1", True),
        ("/srv/clm/mlflow/artifacts", True),
        ("file:///srv/clm/mlflow/artifacts2", False),
        ("file:///srv/clm/mlflow/artifacts/../../other", False),
        ("/elsewhere", False),
        ("s3://bucket/artifacts", True),
    ],
)
def test_a_location_on_disk_is_inside_its_folder_or_not(location: str, inside: bool) -> None:
    assert is_inside(location, Path("/srv/clm/mlflow/artifacts")) is inside
