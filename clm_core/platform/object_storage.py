"""Series in a bucket, for machines without a common disk, with copies of the immutable files in the home.

<url>/data/BTCUSDT/1h/manifest.json            replaced on condition (If-Match)
<url>/data/BTCUSDT/1h/<content hash>.parquet   written once (If-None-Match)
<home>/cache/storage/<SHA-256>                 copy of a file, compared with its digest at every reading
"""

import contextlib
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clm_core.domain.errors import ConflictError, StoreCorrupt
from clm_core.domain.storage_settings import StorageSettings
from clm_core.market.storage import (
    MANIFEST,
    FolderStorage,
    SeriesEdit,
    SeriesStorage,
    StoredFolder,
    write_atomically,
)
from clm_core.platform.bucket import Bucket

if TYPE_CHECKING:
    from clm_core.market.sources import MarketData

CACHE = Path("cache", "storage")
"""Folder of the copies in a home."""
REQUESTS_AT_ONCE = 8
"""Requests of a listing at a time; the client keeps ten connections."""
ROUNDS = 50
"""Rounds of a change that always finds another process ahead, before an error."""
T = TypeVar("T")


def market_data(home: Path, settings: StorageSettings) -> "MarketData":
    """Stored series of an installation: in the home, or in the bucket of the settings."""
    from clm_core.market.sources import MarketData

    return MarketData(home, series_storage(home, settings))


def series_storage(home: Path, settings: StorageSettings) -> SeriesStorage:
    """Storage of the series of an installation: the home, or the bucket of the settings."""
    return FolderStorage(home) if settings.url is None else object_storage(home, settings)


def object_storage(home: Path, settings: StorageSettings) -> "ObjectStorage":
    """Storage in the bucket of the settings, with copies in the home."""
    return ObjectStorage(Bucket(settings), FileCache(home / CACHE, settings.cache_mib * 2**20))


@dataclass(frozen=True)
class FileCache:
    """Copies of immutable files by digest, up to a size."""

    folder: Path
    limit: int
    """Bytes; 0 for no copies."""

    def read(self, sha256: str) -> bytes | None:
        """A copy, None without a whole copy."""
        path = self.folder / sha256
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).hexdigest() != sha256:
            return None
        with contextlib.suppress(OSError):
            # the copies used longest ago go first
            os.utime(path)
        return content

    def add(self, content: bytes) -> None:
        if len(content) > self.limit:
            return
        write_atomically(self.folder / hashlib.sha256(content).hexdigest(), content)
        self._shrink()

    def _shrink(self) -> None:
        files = []
        for entry in os.scandir(self.folder):
            # another process may remove a copy at the same moment
            with contextlib.suppress(FileNotFoundError):
                files.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit:
                return
            Path(path).unlink(missing_ok=True)
            total -= size


@dataclass(frozen=True)
class ObjectStorage:
    """Folders of series in a bucket."""

    bucket: Bucket
    cache: FileCache
    root: str = ""
    """Beginning of the keys: empty, or with a slash at the end."""

    def below(self, name: str) -> "ObjectStorage":
        return ObjectStorage(self.bucket, self.cache, f"{self.root}{name}/")

    def folders(self, within: str | None = None) -> list[str]:
        return self._below(within) if within else self._each(self._below, self.bucket.folders(self.root))

    def manifests(self) -> list[tuple[str, bytes]]:
        return self._each(self._with_manifest, self.folders())

    def address(self, folder: str, name: str = "") -> str:
        return self.bucket.address(self._key(folder, name)).rstrip("/")

    def manifest(self, folder: str) -> bytes | None:
        stored = self.bucket.get(self._key(folder, MANIFEST))
        return None if stored is None else stored.content

    def holds(self, folder: str, name: str) -> bool:
        return self.bucket.get(self._key(folder, name)) is not None

    def read(self, folder: str, name: str, sha256: str, damaged: str) -> bytes:
        copy = self.cache.read(sha256)
        if copy is not None:
            return copy
        stored = self.bucket.get(self._key(folder, name))
        if stored is None or hashlib.sha256(stored.content).hexdigest() != sha256:
            raise StoreCorrupt(damaged)
        self.cache.add(stored.content)
        return stored.content

    def change(self, folder: str, edit: Callable[[StoredFolder], tuple[T, SeriesEdit]]) -> T:
        """As `SeriesStorage.change`; another process ahead is answered by a new round.

        Raises:
            ConflictError: other processes were ahead in every round.
        """
        self.bucket.require_conditions()
        change = _Change(self.bucket, self._key(folder, ""))
        for _ in range(ROUNDS):
            present = self.bucket.get(f"{change.folder}{MANIFEST}")
            manifest = None if present is None else present.content
            answer, written = edit(StoredFolder(manifest, change.left))
            if written.manifest is None or written.manifest == manifest:
                return answer
            if change.write(written, None if present is None else present.etag):
                for content in written.files.values():
                    self.cache.add(content)
                return answer
        raise ConflictError(
            f"{self.address(folder)} was changed by other processes {ROUNDS} times: run the command again"
        )

    def _below(self, first: str) -> list[str]:
        """Folders below a folder of the first level."""
        return [f"{first}/{second}" for second in self.bucket.folders(f"{self.root}{first}/")]

    def _with_manifest(self, folder: str) -> list[tuple[str, bytes]]:
        manifest = self.manifest(folder)
        return [] if manifest is None else [(folder, manifest)]

    def _each(self, answers: Callable[[str], list[T]], folders: list[str]) -> list[T]:
        """Answers about all folders, in their order; several requests at a time."""
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return [answer for batch in pool.map(answers, folders) for answer in batch]

    def _key(self, folder: str, name: str) -> str:
        return f"{self.root}{folder}/{name}"


@dataclass
class _Change:
    """Rounds of a change of a folder."""

    bucket: Bucket
    folder: str
    """Key of the folder, with a slash at the end."""
    left: dict[str, bytes] = field(default_factory=dict)

    def write(self, edit: SeriesEdit, over: str | None) -> bool:
        """Write the files, then the manifest; False if another process is ahead."""
        assert edit.manifest is not None
        if not all(self._put(name, content) for name, content in edit.files.items()):
            return False
        key = f"{self.folder}{MANIFEST}"
        if self.bucket.put(key, edit.manifest, over=over):
            return True
        # the answer to the first of two attempts may have been lost
        stored = self.bucket.get(key)
        return stored is not None and stored.content == edit.manifest

    def _put(self, name: str, content: bytes) -> bool:
        """Write a file; False if the name has another content, kept for the next round."""
        key = f"{self.folder}{name}"
        if self.bucket.put(key, content, over=None):
            return True
        stored = self.bucket.get(key)
        if stored is None:
            return False
        if stored.content == content:
            return True
        if self.left.get(name) != stored.content:
            self.left[name] = stored.content
            return False
        # the edit has refused the content: damaged
        return self.bucket.put(key, content, over=stored.etag)
