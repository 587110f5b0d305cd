"""Snapshots of values beside the bars: a folder with a manifest and immutable, content-addressed files."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import StoreCorrupt
from clm_core.market.store import verified_content, write_atomically

MANIFEST = "manifest.json"
Manifest = TypeVar("Manifest", bound=BaseModel)


class ImportedSnapshot(BaseModel):
    """State of stored values after an import."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    content_hash: str
    """Content hash of the values, hexadecimal; also the name of the file."""
    file_sha256: str
    source: str
    """Name of the imported file."""
    start: datetime
    """Time of the oldest value."""
    end: datetime
    """Time of the newest value."""
    written_at: datetime


def read_manifest(path: Path, kind: type[Manifest]) -> Manifest:
    """
    Raises:
        StoreCorrupt: the file is no manifest of the kind.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise StoreCorrupt(f"{path} is damaged: restore it from a backup, or delete its folder") from error


def read_snapshot(folder: Path, snapshot: ImportedSnapshot, ending: str) -> bytes:
    """Content of a snapshot's file.

    Raises:
        StoreCorrupt: the file is missing or differs from the file that was written.
    """
    path = folder / f"{snapshot.content_hash}.{ending}"
    damaged = f"{path} is missing or damaged: restore it from a backup, or delete {folder} and import again"
    return verified_content(path, snapshot.file_sha256, damaged)


def write_snapshot(
    folder: Path, snapshot: ImportedSnapshot, ending: str, content: bytes, grown: BaseModel
) -> None:
    """Write the file of a snapshot, then the manifest that names the snapshot.

    Args:
        grown: manifest with the snapshot as the newest.
    """
    write_atomically(folder / f"{snapshot.content_hash}.{ending}", content)
    write_atomically(folder / MANIFEST, grown.model_dump_json(indent=1).encode() + b"\n")


def moment(nanoseconds: np.int64) -> datetime:
    """Time in UTC of nanoseconds since 1970."""
    return datetime.fromtimestamp(int(nanoseconds) / 1e9, UTC)
