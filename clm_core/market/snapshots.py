"""Snapshots of values beside the bars: a folder with a manifest and immutable, content-addressed files."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import StoreCorrupt
from clm_core.market.storage import MANIFEST, SeriesEdit, SeriesStorage

UNCHANGED = SeriesEdit(None)
"""Edit of a folder that is left as it is."""
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


def read_manifest(storage: SeriesStorage, folder: str, kind: type[Manifest]) -> Manifest | None:
    """Manifest of a folder; None for a folder without.

    Raises:
        StoreCorrupt: the file is no manifest of the kind.
    """
    content = storage.manifest(folder)
    return None if content is None else parsed_manifest(storage, folder, content, kind)


def read_manifests(storage: SeriesStorage, kind: type[Manifest]) -> list[Manifest]:
    """Manifests of all folders, as `read_manifest`."""
    return [parsed_manifest(storage, folder, content, kind) for folder, content in storage.manifests()]


def parsed_manifest(storage: SeriesStorage, folder: str, content: bytes, kind: type[Manifest]) -> Manifest:
    """Manifest of a folder by the content, as `read_manifest`."""
    try:
        return kind.model_validate_json(content)
    except ValueError as error:
        place = storage.address(folder, MANIFEST)
        raise StoreCorrupt(f"{place} is damaged: restore it from a backup, or delete its folder") from error


def read_snapshot(storage: SeriesStorage, folder: str, snapshot: ImportedSnapshot, ending: str) -> bytes:
    """Content of a snapshot's file.

    Raises:
        StoreCorrupt: the file is missing or differs from the file that was written.
    """
    file = file_name(snapshot.content_hash, ending)
    damaged = (
        f"{storage.address(folder, file)} is missing or damaged: restore it from a backup, or delete "
        f"{storage.address(folder)} and import again"
    )
    return storage.read(folder, file, snapshot.file_sha256, damaged)


def file_name(content_hash: str, ending: str) -> str:
    """Name of the file of a snapshot."""
    return f"{content_hash}.{ending}"


def edit_of(grown: BaseModel, files: Mapping[str, bytes]) -> SeriesEdit:
    """Edit with the files of a snapshot and the manifest with the snapshot."""
    return SeriesEdit(grown.model_dump_json(indent=1).encode() + b"\n", files)


def moment(nanoseconds: np.int64) -> datetime:
    """Time in UTC of nanoseconds since 1970."""
    return datetime.fromtimestamp(int(nanoseconds) / 1e9, UTC)
