"""Removal of the files of failed versions: the model itself goes, the records and the tear sheet stay.

    list failed versions -> lock the model -> record the removal -> remove the files

An interrupted removal leaves files of a version with a recorded removal, and the next one goes on. A backup
and a removal exclude each other.
"""

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Engine, NullPool, create_engine, func, select, text

from clm_core.domain.actors import Actor
from clm_core.domain.errors import ConflictError, IllegalTransition
from clm_core.domain.storage_settings import IN_THE_HOME, StorageSettings
from clm_core.domain.versions import ModelVersion
from clm_core.ledger.store import Ledger
from clm_core.platform.bucket import Bucket
from clm_core.platform.database import Database
from clm_core.platform.locks import AdvisoryLock
from clm_core.registry.locations import (
    BUCKET_FOLDER,
    PLACES,
    artifacts_folder,
    artifacts_location,
    is_inside,
    local_path,
)


class PrunedVersion(BaseModel):
    """A failed version whose files are, or would be, removed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    created_at: datetime
    files: int
    size: int
    """Bytes."""


class _Files(Protocol):
    """Files of a single version."""

    def sizes(self) -> list[int]:
        """Size of each file, bytes; empty without files."""

    def remove(self) -> None: ...


@dataclass(frozen=True)
class _Folder:
    """Files in a folder of the home."""

    path: Path

    def sizes(self) -> list[int]:
        return [path.lstat().st_size for path in self.path.rglob("*") if not path.is_dir()]

    def remove(self) -> None:
        shutil.rmtree(self.path)
        with contextlib.suppress(OSError):
            # the folder of the logged model, where nothing else is left
            self.path.parent.rmdir()


@dataclass(frozen=True)
class _Objects:
    """Files in the bucket."""

    bucket: Bucket
    prefix: str

    def sizes(self) -> list[int]:
        return [each.size for each in self.bucket.objects(self.prefix)]

    def remove(self) -> None:
        self.bucket.delete([each.key for each in self.bucket.objects(self.prefix)])


@dataclass(frozen=True)
class _Prunable:
    version: ModelVersion
    stored: _Files
    files: int
    size: int

    @property
    def report(self) -> PrunedVersion:
        return PrunedVersion(
            **self.version.model_dump(include={"model_id", "version", "created_at"}),
            files=self.files,
            size=self.size,
        )


@dataclass(frozen=True)
class Pruning:
    """Removes files of failed versions."""

    home: Path
    database: Database
    ledger: Ledger
    storage: StorageSettings = IN_THE_HOME

    def plan(self, older_than: timedelta, now: datetime) -> list[PrunedVersion]:
        """Versions whose files a removal at this moment would remove, oldest first."""
        return [each.report for each in self._prunable(older_than, now)]

    def prune(self, older_than: timedelta, by: Actor, now: datetime) -> list[PrunedVersion]:
        """Remove the files of failed versions.

        Args:
            older_than: age of the youngest version concerned.

        Returns:
            Versions without files now; a version promoted meanwhile is left alone.

        Raises:
            ConflictError: a backup or another removal is under way.
        """
        with self._exclusive():
            return [each.report for each in self._prunable(older_than, now) if self._remove(each, by, now)]

    def _remove(self, each: _Prunable, by: Actor, now: datetime) -> bool:
        # a promotion verifies the files under the same lock
        with self.ledger.promotions.lock(each.version.model_id):
            try:
                self.ledger.removed_files.record(each.version, each.files, each.size, by, now)
            except IllegalTransition:
                return False
            each.stored.remove()
        return True

    def _prunable(self, older_than: timedelta, now: datetime) -> Iterator[_Prunable]:
        versions = self.ledger.removed_files.removable(now - older_than)
        if not versions:
            return
        places = self._places()
        shared = Counter(places.values())
        for version in versions:
            location = places.get((version.model_id, version.mlflow_version))
            stored = None if location is None or shared[location] > 1 else self._own_files(location)
            if stored is not None and (sizes := stored.sizes()):
                yield _Prunable(version, stored, len(sizes), sum(sizes))

    def _own_files(self, location: str) -> _Files | None:
        """Files of a version in the home or the bucket of the settings; None for a place elsewhere."""
        path = local_path(location)
        artifacts = artifacts_folder(self.home)
        if path is None:
            return self._own_objects(location)
        if not is_inside(location, artifacts) or not path.is_relative_to(artifacts):
            return None
        return _Folder(path) if len(path.relative_to(artifacts).parts) >= 2 else None

    def _own_objects(self, location: str) -> _Files | None:
        root = artifacts_location(self.home, self.storage)
        below = location.removeprefix(f"{root}/").rstrip("/")
        if self.storage.url is None or not location.startswith(f"{root}/") or below.count("/") < 1:
            return None
        return _Objects(Bucket(self.storage), f"{BUCKET_FOLDER}/{below}/")

    def _places(self) -> dict[tuple[str, int], str]:
        with self._mlflow().connect() as connection:
            rows = connection.execute(text(PLACES))
            return {(name, number): location for name, number, location in rows}

    def _mlflow(self) -> Engine:
        return create_engine(self.database.url("mlflow"), poolclass=NullPool)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[Connection]:
        engine = create_engine(self.database.url("ledger"), poolclass=NullPool)
        with engine.begin() as connection:
            if not connection.scalar(select(func.pg_try_advisory_xact_lock(AdvisoryLock.FILES_OF_VERSIONS))):
                raise ConflictError("A backup or another `clm prune` is under way: repeat the command later.")
            yield connection
