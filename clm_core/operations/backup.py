"""Backup of a home into one file, while everything goes on running.

    files of the audit -> databases at one moment -> all other files -> manifest

Anchors are read first, so that no anchor points beyond the audit in the backup. The files of a version are
complete before the ledger knows the version and never change afterwards: later files fit an earlier moment of
the databases.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import BackupFailed
from clm_core.domain.progress import Announce
from clm_core.platform.backup_archive import (
    DATABASES,
    FORMAT,
    HOME,
    MANIFEST,
    ArchivedFile,
    ArchiveWriter,
    BackupManifest,
    LeftOut,
    archive_writer,
    new_archive,
)
from clm_core.platform.database import RESTORE_MARKER, Database, open_database
from clm_core.platform.database_dumps import DUMPED, ConsistentCut, consistent_cut
from clm_core.registry.integrity import BUNDLE
from clm_core.registry.locations import PLACES, artifacts_folder, artifacts_location, local_path
from clm_core.settings import Settings, settings_file

NOT_COPIED = {
    "postgres": "the dumps of the databases stand for it",
    "postgres.new": "the dumps of the databases stand for it",
    "postgres.gate": "a lock",
    "postgres.users": "a lock",
    "postgres.alive": "a lock",
    "prefect": "files of Prefect, made anew by `clm up`",
    "stack": "state, ports, passwords and logs of running servers, made anew by `clm up`",
    "work": "files of unfinished trainings",
    "cache": "copies of files of the storage",
    "folds": "models of past folds, trained again where needed",
    "served": "positions of former production versions, computed again where needed",
    "replays": "trainings of replays, done again where needed",
    "maintenance": "times of verifications: a restored home verifies every version again",
    "audit/git": "a clone of the repository of the anchors",
    RESTORE_MARKER: "mark of a restoration",
}
"""Files and folders of a home that no backup holds, with the reason."""
ALWAYS_LEFT_OUT = (
    LeftOut(
        what="Prefect's database",
        why="runs and schedules: `clm up` makes the schedules anew, pauses set by hand are lost",
    ),
)
KEPT_BY_THE_BUCKET = (
    "a restored home with the same [storage] reads them there: keep the bucket by versioning and replication"
)
"""Reason why the objects of the bucket are in no backup."""
UNFINISHED = (".unfinished", ".new")
"""Endings of files that a process is about to write."""
_VERSIONS = "SELECT model_id, version, mlflow_version, bundle_digest FROM model_versions ORDER BY 1, 2"
_WITHOUT_FILES = "SELECT model_id, version FROM removed_files"


class BackupReport(BaseModel):
    """A new backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path
    size: int
    """Bytes of the file."""
    content: int
    """Bytes of the contents before compression."""
    members: int
    versions: int
    """Number of versions in the ledger."""
    created_at: datetime
    ledger_revision: str | None
    audit_entries: int
    left_out: tuple[LeftOut, ...]
    incomplete: tuple[str, ...]
    """Versions whose files were missing or changed before the backup."""


def write_backup(settings: Settings, target: Path, announce: Announce) -> BackupReport:
    """Write a backup of the home and its databases into one file.

    Raises:
        AlreadyExists: the file exists.
        BackupFailed: there is no home, the file lies in the home or cannot be written, or PostgreSQL refused.
        DatabaseUnavailable: the server cannot be started or reached.
    """
    target = target.expanduser().absolute()
    _require_home(settings, target)
    with (
        new_archive(target) as file,
        tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder,
        open_database(settings.home, settings.database_url) as database,
    ):
        early = _audit_files(settings.home)
        announce("Databases", 0.0)
        with consistent_cut(database) as cut:
            return _Backup(settings, target, database, cut, announce).write(file, Path(folder), early)


@dataclass
class _Backup:
    settings: Settings
    target: Path
    database: Database
    cut: ConsistentCut
    announce: Announce
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.settings.home

    def write(self, file: IO[bytes], folder: Path, early: Mapping[str, bytes]) -> BackupReport:
        versions = _versions(self.cut)
        progress = _Progress(self.announce)
        with archive_writer(file, self._moment(), progress.copied) as archive:
            for name, content in early.items():
                archive.add_bytes(f"{HOME}/{name}", content)
            self._add_databases(archive, folder)
            self._add_files(archive, progress)
            incomplete = self._incomplete(versions, archive.members)
            self.left_out += [*_outside(self.settings), *_in_bucket(self.settings), *ALWAYS_LEFT_OUT]
            manifest = self._manifest(archive.members, incomplete)
            archive.add_bytes(MANIFEST, manifest.model_dump_json(indent=1).encode())
        file.flush()
        return BackupReport(
            file=self.target,
            size=os.fstat(file.fileno()).st_size,
            content=manifest.size,
            members=len(manifest.members),
            versions=len(versions),
            **manifest.model_dump(
                include={"created_at", "ledger_revision", "audit_entries", "left_out", "incomplete"}
            ),
        )

    def _add_databases(self, archive: ArchiveWriter, folder: Path) -> None:
        for name in DUMPED:
            self.announce(f"Database {name}", 0.0)
            dump = folder / f"{name}.dump"
            self.cut.dump(name, dump)
            archive.add_file(f"{DATABASES}/{dump.name}", dump)
            dump.unlink()

    def _add_files(self, archive: ArchiveWriter, progress: "_Progress") -> None:
        files = [(name, path) for name, path in _files(self.home) if not name.startswith("audit/")]
        progress.begin(sum(path.stat().st_size for _, path in files if path.exists()))
        for name, path in files:
            try:
                archive.add_file(f"{HOME}/{name}", path)
            except FileNotFoundError:
                self.left_out.append(LeftOut(what=name, why="removed while the backup was written"))

    def _incomplete(
        self, versions: Mapping[tuple[str, str], tuple[int, str]], members: Mapping[str, ArchivedFile]
    ) -> tuple[str, ...]:
        """Versions whose list of files is missing from the backup, or differs from the ledger.

        Versions outside the home are noted as left out.
        """
        if not versions:
            return ()
        places = _places(self.cut)
        removed = _without_files(self.cut)
        problems = list[str]()
        elsewhere = Counter[str]()
        for (model_id, label), (number, digest) in versions.items():
            if (model_id, label) in removed:
                continue
            location = places.get((model_id, number))
            listed = None if location is None else self._list_of_files(location)
            if location is not None and listed is None:
                elsewhere[_root(location)] += 1
            elif listed is None or listed not in members or members[listed].sha256 != digest:
                problems.append(f"{model_id} {label}")
        own = artifacts_location(self.home, self.settings.storage)
        self.left_out += [
            LeftOut(
                what=f"files of {count:,} versions in {root}",
                why=KEPT_BY_THE_BUCKET if root == own else "outside the home: back them up there",
            )
            for root, count in sorted(elsewhere.items())
        ]
        return tuple(problems)

    def _list_of_files(self, location: str) -> str | None:
        """Member with the list of the files of a version; None for a version outside the home."""
        path = local_path(location)
        if path is None or not path.is_relative_to(artifacts_folder(self.home)):
            return None
        return f"{HOME}/{(path / BUNDLE / 'manifest.json').relative_to(self.home).as_posix()}"

    def _manifest(self, members: Mapping[str, ArchivedFile], incomplete: tuple[str, ...]) -> BackupManifest:
        entries, head = _newest_entry(self.cut)
        return BackupManifest(
            format=FORMAT,
            clm_version=version("continuous-learning-manager"),
            created_at=self._moment(),
            home=str(self.home),
            embedded=self.database.embedded,
            ledger_revision=_revision(self.cut),
            audit_entries=entries,
            audit_head=head,
            left_out=tuple(self.left_out),
            incomplete=incomplete,
            members=dict(members),
        )

    def _moment(self) -> datetime:
        [row] = self.cut.connections["ledger"].execute("SELECT now()").fetchall()
        moment: datetime = row[0]
        return moment


@dataclass
class _Progress:
    """Fraction of the bytes of the files copied so far."""

    announce: Announce
    total: int = 0
    done: int = 0

    def begin(self, total: int) -> None:
        self.total = total
        self.done = 0

    def copied(self, count: int) -> None:
        self.done += count
        if self.total:
            self.announce("Files", min(1.0, self.done / self.total))


def _require_home(settings: Settings, target: Path) -> None:
    home = settings.home
    if not (home / "home.json").exists() and not (home / "postgres").exists():
        raise BackupFailed(f"{home} is no home of CLM: set CLM_HOME to the home.")
    if target.resolve().is_relative_to(home.resolve()):
        raise BackupFailed(
            f"{target} lies in the home, and would be lost with the home: choose a folder on another disk."
        )
    if not target.parent.is_dir():
        raise BackupFailed(f"There is no folder {target.parent}: make the folder, or choose another.")


def _audit_files(home: Path) -> dict[str, bytes]:
    """Anchors and timestamps, by path in the home."""
    return {name: path.read_bytes() for name, path in _files(home) if name.startswith("audit/")}


def _files(home: Path) -> Iterator[tuple[str, Path]]:
    """Files of a home for a backup, by path; links are followed, loops of links are not."""
    seen = set[tuple[int, int]]()
    for folder, folders, files in os.walk(home, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        here = Path(folder)
        folders[:] = sorted(name for name in folders if _is_copied(home, here / name))
        for name in sorted(files):
            path = here / name
            if _is_copied(home, path) and path.is_file():
                yield path.relative_to(home).as_posix(), path


def _is_copied(home: Path, path: Path) -> bool:
    return path.relative_to(home).as_posix() not in NOT_COPIED and not path.name.endswith(UNFINISHED)


def _outside(settings: Settings) -> Iterator[LeftOut]:
    """Files of the settings outside the home."""
    named = (settings_file(settings.home), settings.policy.file, *settings.features.files)
    for path in named:
        if path is not None and not path.absolute().is_relative_to(settings.home):
            yield LeftOut(what=str(path), why="a file of the settings outside the home")


def _in_bucket(settings: Settings) -> Iterator[LeftOut]:
    if settings.storage.url is not None:
        yield LeftOut(what=f"bars and other series in {settings.storage.url}", why=KEPT_BY_THE_BUCKET)


def _root(location: str) -> str:
    """Folder or bucket of all versions, from the location of a version."""
    return location.partition("/models/")[0]


def _versions(cut: ConsistentCut) -> dict[tuple[str, str], tuple[int, str]]:
    """MLflow's number and digest of every version; empty for a home without a ledger."""
    if not _has(cut, "model_versions"):
        return {}
    rows = cut.connections["ledger"].execute(_VERSIONS)
    return {(model_id, label): (number, digest) for model_id, label, number, digest in rows}


def _without_files(cut: ConsistentCut) -> set[tuple[str, str]]:
    """Versions whose files were removed on purpose."""
    if not _has(cut, "removed_files"):
        return set()
    return {(model_id, label) for model_id, label in cut.connections["ledger"].execute(_WITHOUT_FILES)}


def _places(cut: ConsistentCut) -> dict[tuple[str, int], str]:
    """Folder of every version in MLflow, by model and number."""
    rows = cut.connections["mlflow"].execute(PLACES)
    return {(name, number): location for name, number, location in rows}


def _newest_entry(cut: ConsistentCut) -> tuple[int, str]:
    if not _has(cut, "audit_log"):
        return 0, ""
    newest = "SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1"
    row = cut.connections["ledger"].execute(newest).fetchone()
    return (0, "") if row is None else (row[0], row[1])


def _revision(cut: ConsistentCut) -> str | None:
    if not _has(cut, "alembic_version"):
        return None
    row = cut.connections["ledger"].execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _has(cut: ConsistentCut, table: str) -> bool:
    row = cut.connections["ledger"].execute("SELECT to_regclass(%s)", [table]).fetchone()
    return row is not None and row[0] is not None
