"""Locations of the artifacts in MLflow's database, which follow the home.

MLflow stores absolute locations. After `mv` or `cp -a` of a home the locations name the former path: versions
would not load, and a retrain would write there. `settle` compares the locations with the home in force and
rewrites the locations in a single transaction. With the embedded server the database belongs to the home, and
every copy follows. A shared server has one set of locations: a moved home follows, and a copy beside the
original is refused.

`MLmodel` files also name the path of the registration. Nothing reads that path, and the files are listed with
digests, so the files stay unchanged.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from sqlalchemy import Connection, Engine, NullPool, create_engine, func, select, text
from sqlalchemy.exc import DataError

from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action
from clm_core.domain.errors import HomeMismatch, StackRunning
from clm_core.domain.storage_settings import StorageSettings
from clm_core.ledger import audit_records
from clm_core.platform import stack_state
from clm_core.platform.database import Database
from clm_core.platform.home_record import HomeRecord
from clm_core.platform.locks import AdvisoryLock

EXPERIMENT = "clm"
HOME_TAG = "clm.home"
"""Tag of the experiment: id of the home with the artifacts."""
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
    ("workspaces", "default_artifact_root"),
    ("workspaces", "trace_archival_location"),
)
"""Columns of MLflow's tables with locations of artifacts."""
PLACES = """
SELECT name, version, coalesce(storage_location, source) FROM model_versions
WHERE current_stage IS DISTINCT FROM 'Deleted_Internal'
"""
"""Query of the folder of every version in MLflow: model id, number, location."""
BUCKET_FOLDER = "artifacts"
"""Folder of the artifacts in a bucket."""
FOLDERS_OF_A_HOME = ("audit", "data", "postgres", "reports", "stack")
"""Folders beside `mlflow` that tell a home of release 0.1.0 from the remains of a moved home."""

log = logging.getLogger("clm.home")


@dataclass(frozen=True)
class _Recorded:
    """The experiment as stored by MLflow."""

    id: int
    location: str
    home_id: str | None


def artifacts_folder(home: Path) -> Path:
    return home / "mlflow" / "artifacts"


def artifacts_location(home: Path, storage: StorageSettings) -> str:
    """Location of all artifacts: the folder in the home, or `artifacts` in the bucket of the settings."""
    if storage.url is None:
        return artifacts_folder(home).absolute().as_uri()
    return f"{storage.url}/{BUCKET_FOLDER}"


def local_path(location: str) -> Path | None:
    """Folder of a location on this machine's disks; None for an object store or another server."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(location)


def is_inside(location: str, folder: Path) -> bool:
    """True unless the location is on this machine's disks and outside the folder; symlinks are resolved."""
    path = local_path(location)
    return path is None or path.resolve().is_relative_to(folder.resolve())


def settle(home: Path, database: Database, ledger: Engine, now: datetime, *, restored: bool = False) -> None:
    """Make the locations follow the home, and record the path in force in the home.

    A home without artifacts in the database, beside a home with them, is left alone: the registration of a
    version refuses there.

    Args:
        restored: True for databases that were restored for this home alone; nothing is read from the former
            path, where another home may live.

    Raises:
        HomeMismatch: the home is a copy that shares the database with the original, or the new path is too
            long for MLflow.
        StackRunning: `clm up` still runs for the home under the former path.
    """
    engine = create_engine(database.url("mlflow", driver="psycopg"), poolclass=NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as lock:
        # held until the record is written: the second of two commands finds everything done
        lock.execute(select(func.pg_advisory_lock(AdvisoryLock.HOME)))
        with engine.begin() as connection:
            settled = _settled(connection, home, database, ledger, now, restored)
        if settled is not None:
            settled.write(home)


def move_to_bucket(
    database: Database, folder: Path, location: str, ledger: Engine, now: datetime, by: Actor
) -> int:
    """Name a bucket in place of a folder in every location; the files are there already.

    Returns:
        Number of changed locations.

    Raises:
        HomeMismatch: a location becomes too long.
    """
    engine = create_engine(database.url("mlflow", driver="psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(AdvisoryLock.HOME)))
        if _recorded(connection) is None:
            return 0
        changed = _rewrite(connection, folder, (location, location))
        if changed:
            details = {"from": str(folder), "to": location, "locations": changed, "copied": 0}
            with ledger.begin() as audit:
                audit_records.record(audit, Action.HOME_MOVED, "home", now, details, by)
    return changed


def _settled(
    connection: Connection, home: Path, database: Database, ledger: Engine, now: datetime, restored: bool
) -> HomeRecord | None:
    """Record of the home at the path in force; None for a home beside the home with the artifacts."""
    known = HomeRecord.read(home)
    record = (known or HomeRecord.fresh(home, database)).at(home, database)
    recorded = _recorded(connection)
    if recorded is None:
        return record
    former = local_path(recorded.location)
    if former is None or former.parts[-2:] != ("mlflow", "artifacts"):
        # kept elsewhere on purpose
        return record
    if former.resolve() != artifacts_folder(home).resolve():
        owned = database.embedded or restored
        if not owned and not _may_follow(connection, home, known, recorded, former):
            return None
        if stack_state.running(home) is not None:
            raise StackRunning(
                f"`clm up` still runs for {home} under the former path {former.parents[1]}: "
                "end it with `clm down`, then try again."
            )
        record = record.model_copy(update={"id": uuid4().hex})
        copied = 0 if restored else _copy_missing(connection, former, artifacts_folder(home))
        _follow(connection, home, former, ledger, now, copied)
        if not restored:
            _announce(home, former, copied)
    _tag(connection, recorded.id, record.id)
    return record


def _recorded(connection: Connection) -> _Recorded | None:
    """The experiment of the versions; None before the first registration."""
    if connection.scalar(text("SELECT to_regclass('experiments')")) is None:
        return None
    row = connection.execute(
        text(
            "SELECT experiment_id, artifact_location, (SELECT value FROM experiment_tags AS t "
            "WHERE t.experiment_id = e.experiment_id AND t.key = :tag) "
            "FROM experiments AS e WHERE name = :name"
        ),
        {"tag": HOME_TAG, "name": EXPERIMENT},
    ).one_or_none()
    return None if row is None else _Recorded(*row)


def _may_follow(
    connection: Connection, home: Path, known: HomeRecord | None, recorded: _Recorded, former: Path
) -> bool:
    """True for the moved home of a shared database, false for a home of its own.

    Raises:
        HomeMismatch: the home is a copy, and the original still exists.
    """
    if known is None or recorded.home_id is None:
        # of release 0.1.0, or restored without the record
        ours = any((artifacts_folder(home) / path).is_dir() for path in _stored(connection, former))
    else:
        ours = known.id == recorded.home_id
    if ours and _is_home(former.parents[1], recorded.home_id):
        raise HomeMismatch(
            f"{home} is a copy of the home {former.parents[1]}, and both use the database of "
            f"CLM_DATABASE_URL, which can hold the versions of one home. To use the copy, set "
            f"CLM_DATABASE_URL to another server with a restored copy of the databases. To use the original, "
            f"set CLM_HOME={former.parents[1]}. To move the home, remove or rename {former.parents[1]} first."
        )
    return ours


def _is_home(folder: Path, home_id: str | None) -> bool:
    record = HomeRecord.read(folder)
    if record is not None:
        return home_id is None or record.id == home_id
    return any((folder / name).is_dir() for name in FOLDERS_OF_A_HOME)


def _follow(
    connection: Connection, home: Path, former: Path, ledger: Engine, now: datetime, copied: int
) -> None:
    artifacts = artifacts_folder(home)
    changed = _rewrite(connection, former, (artifacts.as_uri(), str(artifacts)))
    details = {"from": str(former.parents[1]), "to": str(home), "locations": changed, "copied": copied}
    with ledger.begin() as audit:
        audit_records.record(audit, Action.HOME_MOVED, "home", now, details)


def _announce(home: Path, former: Path, copied: int) -> None:
    log.warning(
        "The home %s was moved or copied from %s: versions are now read and written under the new path.%s",
        home,
        former.parents[1],
        f" {copied} folders of artifacts that were only at the former path were copied." if copied else "",
    )


def _rewrite(connection: Connection, former: Path, replacements: tuple[str, str]) -> int:
    """Replaces the former path in every location; returns the number of changed locations.

    Args:
        replacements: replacements of the URL and of the plain path.

    Raises:
        HomeMismatch: a location becomes too long.
    """
    present = set(
        connection.execute(
            text(
                "SELECT table_name, column_name FROM information_schema.columns "
                "WHERE table_schema = current_schema()"
            )
        ).tuples()
    )
    # MLflow's server writes plain paths, CLM writes URLs
    forms = list(zip((former.as_uri(), str(former)), replacements, strict=True))
    changed = 0
    try:
        for table, column in COLUMNS:
            for old, new in forms if (table, column) in present else ():
                changed += connection.execute(
                    text(
                        f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                        f"WHERE {column} = :old OR starts_with({column}, :old || '/')"
                    ),
                    {"old": old, "new": new},
                ).rowcount
    except DataError as error:
        raise HomeMismatch(
            f"{replacements[1]} is too long for MLflow, which allows 200 characters for the location of a "
            "run: choose a shorter path or URL."
        ) from error
    return changed


def _copy_missing(connection: Connection, former: Path, artifacts: Path) -> int:
    """Copies artifacts that release 0.1.0 wrote to the former path after a move; returns the number of
    folders.

    Raises:
        HomeMismatch: a folder cannot be copied.
    """
    copied = 0
    for path in _stored(connection, former):
        source = former / path
        target = artifacts / path
        if target.exists() or not source.is_dir():
            continue
        unfinished = target.with_name(f"{target.name}.unfinished")
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            # a symlink stays a symlink, which the verification refuses
            shutil.copytree(source, unfinished, symlinks=True)
            unfinished.rename(target)
        except OSError as error:
            raise HomeMismatch(
                f"{source} cannot be copied into the home in force, {target}: {error}. "
                "Make room or give the right to read, then try again."
            ) from error
        copied += 1
    return copied


def _stored(connection: Connection, former: Path) -> Iterator[Path]:
    """Folders of the versions and runs, relative to the folder of the artifacts."""
    locations = connection.scalars(
        text("SELECT artifact_location FROM logged_models UNION SELECT artifact_uri FROM runs")
    )
    for location in locations.all():
        path = local_path(location or "")
        if path is not None and path.is_relative_to(former) and ".." not in path.parts:
            yield path.relative_to(former)


def _tag(connection: Connection, experiment: int, home_id: str) -> None:
    connection.execute(
        text(
            "INSERT INTO experiment_tags (experiment_id, key, value) VALUES (:experiment, :key, :value) "
            "ON CONFLICT (experiment_id, key) DO UPDATE SET value = excluded.value"
        ),
        {"experiment": experiment, "key": HOME_TAG, "value": home_id},
    )
