"""Storage of series: folders with a changing manifest and unchanging files, named by content.

    <root>/BTCUSDT/1h/manifest.json
    <root>/BTCUSDT/1h/<content hash>.parquet

A change writes new files first and the manifest last: a manifest names whole files alone.
`FolderStorage` keeps everything on a disk of this machine; `platform.object_storage` in a bucket.
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeVar

from clm_core.domain.errors import StoreCorrupt

MANIFEST = "manifest.json"
T = TypeVar("T")


@dataclass(frozen=True)
class SeriesEdit:
    """Change of a folder."""

    manifest: bytes | None
    """New manifest; None for no change."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """New files by name, written before the manifest."""


@dataclass(frozen=True)
class StoredFolder:
    """A folder before an edit."""

    manifest: bytes | None
    """Manifest in force; None for a folder without."""
    left: Mapping[str, bytes] = field(default_factory=dict)
    """Contents by name, written by another process and perhaps not named by a manifest yet. An edit with a
    file of the name takes the content if the content is whole."""


class SeriesStorage(Protocol):
    """Folders below a root; safe for concurrent processes."""

    def below(self, name: str) -> Self:
        """Storage of the folders below a folder of the root."""

    def folders(self, within: str | None = None) -> list[str]:
        """Folders two levels below the root, sorted; a folder of an interrupted change may have no manifest.

        Args:
            within: first level of the folders; by default all.
        """

    def manifests(self) -> list[tuple[str, bytes]]:
        """Every folder with a manifest, sorted, and the manifest."""

    def address(self, folder: str, name: str = "") -> str:
        """Path or address of a folder or file, for messages."""

    def manifest(self, folder: str) -> bytes | None:
        """Manifest of a folder; None for a folder without."""

    def holds(self, folder: str, name: str) -> bool:
        """True if the folder has the file."""

    def read(self, folder: str, name: str, sha256: str, damaged: str) -> bytes:
        """Content of a file.

        Raises:
            StoreCorrupt: the file is missing or has another digest; with the text `damaged`.
        """

    def change(self, folder: str, edit: Callable[[StoredFolder], tuple[T, SeriesEdit]]) -> T:
        """Change a folder on the basis of the present state; no change of another process is lost.

        Args:
            edit: pure function from the present state to an answer and the change, called again where another
                process changed the folder meanwhile.

        Returns:
            The answer of the written edit.
        """


class FolderStorage:
    """Series below a folder on a disk; a lock file in each folder lets a single process write at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def below(self, name: str) -> "FolderStorage":
        return FolderStorage(self.root / name)

    def folders(self, within: str | None = None) -> list[str]:
        pattern = f"{within or '*'}/*/{MANIFEST}"
        return [path.parent.relative_to(self.root).as_posix() for path in sorted(self.root.glob(pattern))]

    def manifests(self) -> list[tuple[str, bytes]]:
        manifests = ((folder, self.manifest(folder)) for folder in self.folders())
        return [(folder, manifest) for folder, manifest in manifests if manifest is not None]

    def address(self, folder: str, name: str = "") -> str:
        return str(self.root / folder / name)

    def manifest(self, folder: str) -> bytes | None:
        path = self.root / folder / MANIFEST
        return path.read_bytes() if path.exists() else None

    def holds(self, folder: str, name: str) -> bool:
        return (self.root / folder / name).exists()

    def read(self, folder: str, name: str, sha256: str, damaged: str) -> bytes:
        path = self.root / folder / name
        if not path.exists():
            raise StoreCorrupt(damaged)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StoreCorrupt(damaged)
        return content

    def change(self, folder: str, edit: Callable[[StoredFolder], tuple[T, SeriesEdit]]) -> T:
        path = self.root / folder
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path / ".lock"):
            present = self.manifest(folder)
            answer, change = edit(StoredFolder(present))
            if change.manifest is not None:
                for name, content in change.files.items():
                    write_atomically(path / name, content)
                if change.manifest != present:
                    write_atomically(path / MANIFEST, change.manifest)
            return answer


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file atomically: readers see the old or the complete new file, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # two threads may write one file at a time
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Exclusive file lock between processes, released by the system on the death of the holder."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
