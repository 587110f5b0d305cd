"""Restoration of a home from a backup.

    verify every member -> mark the home -> files -> databases -> upgrade of the ledger -> locations
    -> end interrupted promotions -> compare audit and versions -> remove the mark

Until the end every other command refuses the home, so that no part of a home passes for a whole home. An
interrupted restoration is repeated from the beginning, after the removal of everything written before.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from clm_core.domain.actors import SYSTEM, Actor
from clm_core.domain.audit import Action
from clm_core.domain.errors import (
    BackupDamaged,
    CLMError,
    RestoreRefused,
)
from clm_core.domain.progress import Announce
from clm_core.domain.storage_settings import IN_THE_HOME, StorageSettings
from clm_core.ledger import audit_log, audit_records
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.schema import examine
from clm_core.ledger.store import Ledger
from clm_core.platform import database_dumps
from clm_core.platform.backup_archive import HOME, BackupManifest, Copied, extract, verify_archive
from clm_core.platform.database import RESTORE_MARKER, Database, open_database
from clm_core.platform.database_dumps import DUMPED
from clm_core.platform.file_locks import lock_file
from clm_core.platform.private_files import secure_home
from clm_core.registry.locations import artifacts_folder, settle
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.promotion import Promotions
from clm_core.services import open_ledger

ALL = 1_000_000_000
"""Limit of a list of all versions."""
UNLIMITED = 2**60
"""Maximum size of a version, bytes: the manifest of the backup vouches for the files."""


class RestoreReport(BaseModel):
    """A restored home."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    file: Path
    created_at: datetime
    """Moment of the state in the backup."""
    clm_version: str
    """Release of CLM at the backup."""
    applied: tuple[str, ...]
    """Revisions of the ledger applied after the restoration."""
    ended: tuple[str, ...]
    """Promotions interrupted by the backup and ended now, a sentence each."""
    audit_entries: int
    versions: int
    """Number of versions whose files were compared with the ledger."""
    problems: tuple[str, ...]
    """Versions whose files are missing or changed, contradictions of the audit, and faults of the ledger's
    tables and rights, a sentence each."""


@dataclass(frozen=True)
class HomeStores:
    """Stores of a home outside the home."""

    database_url: SecretStr | None = None
    """PostgreSQL server; None for the embedded server."""
    storage: StorageSettings = IN_THE_HOME


class _Marker(BaseModel):
    """Content of the marker of a home under restoration."""

    model_config = ConfigDict(frozen=True)

    id: str
    file: Path


def restore_home(
    file: Path,
    home: Path,
    stores_of: Callable[[Path], HomeStores],
    by: Actor,
    announce: Announce,
) -> RestoreReport:
    """Restore a backup into an empty home and empty databases.

    Args:
        stores_of: database and bucket of a home whose settings file is in place.
        by: person who asked for the restoration.

    Raises:
        BackupDamaged: the file is no backup, or was changed; nothing was written.
        RestoreRefused: the home or a database is not empty, or the backup does not fit on the disk; nothing
            was written.
        DatabaseUnavailable: the server cannot be started or reached.
    """
    file = file.expanduser().absolute()
    home = home.expanduser().absolute()
    if not file.is_file():
        raise BackupDamaged(f"There is no file {file}: name the file of a backup.")
    manifest = verify_archive(file, _progress(announce, "Verify", file))
    _require_empty(home)
    _require_space(home, manifest)
    with _marked(home, file) as marker:
        return _Restoration(file, home, manifest, marker, stores_of, by, announce).run()


@dataclass(frozen=True)
class _Restoration:
    file: Path
    home: Path
    manifest: BackupManifest
    marker: _Marker
    stores_of: Callable[[Path], HomeStores]
    by: Actor
    announce: Announce

    def run(self) -> RestoreReport:
        self._clear()
        # beside the home, since the dumps are large
        with tempfile.TemporaryDirectory(prefix=".restore.", dir=self.home) as folder:
            self._write_files(Path(folder))
            stores = self.stores_of(self.home)
            with open_database(self.home, stores.database_url, restoring=True) as database:
                try:
                    self._restore_databases(database, Path(folder))
                except RestoreRefused:
                    self._clear()
                    raise
                report = self._finish(database, stores.storage)
                database_dumps.release(database)
        return report

    def _clear(self) -> None:
        """Remove the files of an interrupted restoration; the embedded server stays until the databases are
        emptied."""
        for path in self.home.iterdir():
            if path.name == RESTORE_MARKER or path.name.startswith("postgres"):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _write_files(self, folder: Path) -> None:
        def place(name: str) -> Path:
            kind, _, path = name.partition("/")
            return (self.home if kind == HOME else folder) / path

        extract(self.file, self.manifest, place, _progress(self.announce, "Files", self.file))

    def _restore_databases(self, database: Database, folder: Path) -> None:
        if database_dumps.is_claimed(database, self.marker.id):
            for name in DUMPED:
                database_dumps.clear(database, name)
        for name in DUMPED:
            if not database_dumps.is_empty(database, name):
                raise RestoreRefused(
                    f"The database {name} of the server is in use: restore to another server "
                    "(CLM_DATABASE_URL), or remove the databases clm_ledger, clm_mlflow and clm_optuna there."
                )
        database_dumps.claim(database, self.marker.id)
        for name in DUMPED:
            self.announce(f"Database {name}", 0.0)
            database_dumps.restore(database, name, folder / f"{name}.dump")

    def _finish(self, database: Database, storage: StorageSettings) -> RestoreReport:
        self.announce("Upgrade", 0.0)
        applied = upgrade(database.url("ledger"))
        with open_ledger(database) as engine:
            ledger = Ledger(engine)
            settle(self.home, database, engine, ledger.now(), restored=True)
            registry = MLflowRegistry(
                database.url("mlflow"),
                artifacts_folder(self.home),
                max_bytes=UNLIMITED,
                storage=storage,
            )
            ended = _end_promotions(ledger, registry)
            with engine.begin() as connection:
                audit_records.record(
                    connection, Action.HOME_RESTORED, "home", ledger.now(), self._details(), self.by
                )
            versions, problems = self._verified(ledger, registry)
            anchors = audit_log.read_anchors(audit_log.anchor_folder(self.home))
            chain = audit_log.verify(engine, anchors)
            problems += [str(problem) for problem in chain.problems]
            problems += examine(database.url("ledger")).problems
            if not chain.problems:
                ledger.anchor(audit_log.anchor_folder(self.home), ledger.now())
            return RestoreReport(
                home=self.home,
                file=self.file,
                created_at=self.manifest.created_at,
                clm_version=self.manifest.clm_version,
                applied=applied,
                ended=ended,
                audit_entries=chain.entries,
                versions=versions,
                problems=tuple(problems),
            )

    def _details(self) -> dict[str, object]:
        manifest = self.manifest
        return {
            "from": manifest.home,
            "to": str(self.home),
            "backup_of": manifest.created_at,
            "audit_entries": manifest.audit_entries,
            "audit_head": manifest.audit_head,
            "clm_version": manifest.clm_version,
        }

    def _verified(self, ledger: Ledger, registry: MLflowRegistry) -> tuple[int, list[str]]:
        """Number of versions, and a sentence for each version whose files differ from the ledger."""
        removed = ledger.removed_files.names()
        problems = list[str]()
        stored = ledger.versions(limit=ALL)
        versions = [version for version in stored if (version.model_id, version.version) not in removed]
        if registry.bucket is not None:
            try:
                # one answer for all versions
                registry.bucket.require_reachable()
            except CLMError as error:
                return 0, [f"the files of {len(versions):,} versions were not compared: {error}"]
        for number, version in enumerate(versions):
            self.announce("Versions", number / len(versions))
            try:
                registry.verify(
                    version.model_id, version.mlflow_version, version.bundle_digest, version.package_digest
                )
            except CLMError as error:
                problems.append(f"{version.model_id} {version.version}: {error}")
        return len(versions), problems


def _end_promotions(ledger: Ledger, registry: MLflowRegistry) -> tuple[str, ...]:
    promotions = Promotions(ledger, registry, None)
    return tuple(
        f"{model_id}: {change.kind} {change.id} is {change.state}"
        for model_id in ledger.promotions.models()
        for change in promotions.reconcile(model_id, SYSTEM, ledger.now())
    )


def _progress(announce: Announce, step: str, file: Path) -> Copied:
    """Receiver of copied bytes; the whole is estimated by the size of the compressed file."""
    total = max(1, file.stat().st_size)
    done = 0

    def copied(count: int) -> None:
        nonlocal done
        done += count
        announce(step, done / (done + total))

    return copied


def _require_empty(home: Path) -> None:
    if not home.exists():
        return
    present = sorted(path.name for path in home.iterdir()) if home.is_dir() else [home.name]
    if RESTORE_MARKER not in present and present:
        raise RestoreRefused(
            f"{home} is not empty ({', '.join(present[:5])}): name an empty folder with --home, or move the "
            "home away. Keep a damaged home: it may be evidence."
        )


def _require_space(home: Path, manifest: BackupManifest) -> None:
    folder = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(folder).free
    if free < manifest.size:
        raise RestoreRefused(
            f"The backup holds {manifest.size / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB left: make "
            "room, or name another folder with --home."
        )


@contextmanager
def _marked(home: Path, file: Path) -> Iterator[_Marker]:
    """Mark a home for the time of the restoration.

    Raises:
        RestoreRefused: another restoration of the home is running.
    """
    secure_home(home)
    path = home / RESTORE_MARKER
    with path.open("a+b") as locked:
        if not lock_file(locked, wait=False):
            raise RestoreRefused(f"Another restoration of {home} is running: wait for its end.")
        marker = _written(path, file)
        try:
            yield marker
        except (BackupDamaged, RestoreRefused):
            # nothing is left to repeat
            if not any(home.glob("postgres/*")):
                path.unlink()
            raise
        path.unlink()


def _written(path: Path, file: Path) -> _Marker:
    """The marker of an interrupted restoration, or a new marker."""
    with suppress(ValidationError):
        return _Marker.model_validate_json(path.read_bytes())
    marker = _Marker(id=uuid4().hex, file=file)
    path.write_text(marker.model_dump_json(), encoding="utf-8")
    return marker
