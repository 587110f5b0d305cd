"""Bars and artifacts of a home brought into the bucket of the settings.

    series: files, then manifests -> artifacts -> locations in MLflow's database, in a single transaction

Until the last step everything is read from the home; an interrupted upload is repeated and goes on. Nothing
is removed from the home.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine

from clm_core.domain.actors import Actor
from clm_core.domain.errors import ConflictError, NoHome, SettingsError, StackRunning
from clm_core.domain.progress import Announce
from clm_core.ledger.clock import read_clock
from clm_core.market.storage import MANIFEST
from clm_core.platform import stack_state
from clm_core.platform.bucket import Bucket
from clm_core.platform.database import Database, open_database
from clm_core.registry.locations import BUCKET_FOLDER, artifacts_folder, move_to_bucket
from clm_core.services import open_ledger, settle_home
from clm_core.settings import Settings

SERIES = ("data", "carry", "series")
"""Folders of a home with series."""


class UploadReport(BaseModel):
    """Upload of a home into a bucket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    url: str
    files: int
    """Number of files of the home now in the bucket."""
    sent: int
    """Number of files sent by this upload."""
    size: int
    """Bytes of all files."""
    locations: int
    """Number of locations in MLflow's database changed to the bucket."""


def upload_home(settings: Settings, by: Actor, announce: Announce) -> UploadReport:
    """Copy series and artifacts of a home into the bucket, and let MLflow read and write there.

    Raises:
        SettingsError: the settings name no bucket.
        StorageUnavailable: the bucket cannot be reached or written to.
        StackRunning: `clm up` runs for the home.
        NoHome: there is no home.
        ConflictError: the bucket has another file under the name of a file of the home.
    """
    if settings.storage.url is None:
        raise SettingsError("The settings name no bucket: set [storage] url.")
    if not settings.home.is_dir():
        raise NoHome(f"There is no home {settings.home}: set CLM_HOME.")
    if stack_state.running(settings.home) is not None:
        raise StackRunning(f"`clm up` runs for {settings.home}: end it with `clm down`, then try again.")
    bucket = Bucket(settings.storage)
    bucket.require_writable()
    with open_database(settings.home, settings.database_url) as database:
        settle_home(settings.home, database)
        with open_ledger(database) as engine:
            return _Upload(settings.home, bucket, database, engine, by, announce).run(read_clock(engine))


@dataclass(frozen=True)
class _Upload:
    home: Path
    bucket: Bucket
    database: Database
    ledger: Engine
    by: Actor
    announce: Announce

    def run(self, now: datetime) -> UploadReport:
        files = list(self._files())
        sent = 0
        for number, (path, key) in enumerate(files):
            self.announce("Files", number / len(files))
            sent += self._send(path, key)
        folder = artifacts_folder(self.home)
        location = self.bucket.address(BUCKET_FOLDER)
        changed = move_to_bucket(self.database, folder, location, self.ledger, now, self.by)
        return UploadReport(
            home=self.home,
            url=self.bucket.url,
            files=len(files),
            sent=sent,
            size=sum(path.stat().st_size for path, _ in files),
            locations=changed,
        )

    def _files(self) -> Iterator[tuple[Path, str]]:
        """Files and keys, the manifests of the series last among the series."""
        for name in SERIES:
            files = sorted((self.home / name).glob("*/*/*"), key=lambda path: path.name == MANIFEST)
            for path in files:
                if not path.name.startswith("."):
                    yield path, path.relative_to(self.home).as_posix()
        folder = artifacts_folder(self.home)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path, f"{BUCKET_FOLDER}/{path.relative_to(folder).as_posix()}"

    def _send(self, path: Path, key: str) -> bool:
        """Write a file; False if the bucket has the same file already."""
        content = path.read_bytes()
        if self.bucket.put(key, content, over=None):
            return True
        stored = self.bucket.get(key)
        if stored is None or stored.content != content:
            raise ConflictError(
                f"{self.bucket.address(key)} differs from {path}, and nothing was changed: choose another "
                "[storage] url, or remove the object if it belongs to no installation."
            )
        return False
