"""Format of a backup: a gzip-compressed tar whose last member, `manifest.json`, lists the others.

    databases/ledger.dump       PostgreSQL's custom format, one file a database
    home/...                    files of the home, with their paths
    manifest.json               versions, time, SHA-256 and size of every other member

A backup is read twice: first every member is compared with the manifest, then the members are written out.
"""

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from clm_core.domain.errors import AlreadyExists, BackupDamaged, BackupFailed
from clm_core.platform.file_locks import lock_file

FORMAT = 1
MANIFEST = "manifest.json"
HOME = "home"
DATABASES = "databases"
LEVEL = 1
"""Level of compression: level 6 saves an eighth of the size for 2.6 times the processor time."""
CHUNK = 1 << 20
IN_MEMORY = 8 << 20
"""Size up to which a file is read as a whole, bytes: a file that becomes shorter meanwhile does no harm."""

Copied = Callable[[int], None]
"""Called with the number of bytes of every piece."""


class ArchivedFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    """Bytes."""
    sha256: str


class LeftOut(BaseModel):
    """Something missing in a backup on purpose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    why: str


class BackupManifest(BaseModel):
    """Contents of a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    clm_version: str
    created_at: AwareDatetime
    """Moment of the state in the backup, by the clock of the database."""
    home: str
    """Path of the home at the backup."""
    embedded: bool
    """True for databases of the embedded server."""
    ledger_revision: str | None
    """None for a home without a ledger."""
    audit_entries: int
    """Number of the newest entry of the audit."""
    audit_head: str
    """Hash of the newest entry; empty without entries."""
    left_out: tuple[LeftOut, ...]
    incomplete: tuple[str, ...]
    """Versions whose files were missing or changed already, `MODEL VERSION` each."""
    members: dict[str, ArchivedFile]

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(member.size for member in self.members.values())


class ArchiveWriter:
    """Members of a growing backup."""

    def __init__(self, archive: tarfile.TarFile, now: datetime, copied: Copied) -> None:
        self._archive = archive
        self._now = now
        self._copied = copied
        self.members: dict[str, ArchivedFile] = {}

    def add_file(self, name: str, path: Path) -> None:
        """
        Raises:
            FileNotFoundError: the file is gone.
            BackupFailed: the file became shorter while it was copied.
        """
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= IN_MEMORY:
                self.add_bytes(name, file.read())
                return
            self._add(name, size, file)

    def add_bytes(self, name: str, content: bytes) -> None:
        self._add(name, len(content), io.BytesIO(content))

    def _add(self, name: str, size: int, file: IO[bytes]) -> None:
        read = _HashedReader(file, self._copied)
        entry = tarfile.TarInfo(name)
        entry.size = size
        entry.mode = 0o600
        entry.mtime = int(self._now.timestamp())
        self._archive.addfile(entry, read)
        if read.size != size:
            raise BackupFailed(f"{name} became shorter while it was copied: repeat the backup.")
        self.members[name] = ArchivedFile(size=size, sha256=read.digest)


class _HashedReader:
    """Reads a file and computes the digest of the bytes read."""

    def __init__(self, file: IO[bytes], copied: Copied) -> None:
        self._file = file
        self._copied = copied
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, count: int = -1) -> bytes:
        piece = self._file.read(count)
        self._hash.update(piece)
        self.size += len(piece)
        self._copied(len(piece))
        return piece

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


@contextlib.contextmanager
def new_archive(target: Path) -> Iterator[IO[bytes]]:
    """File of a new backup, renamed to the target once complete and on the disk.

    Raises:
        AlreadyExists: the file exists.
        BackupFailed: the file cannot be written, or another backup is writing there.
    """
    _require_absent(target)
    unfinished = target.with_name(f"{target.name}.unfinished")
    with _failures(target), unfinished.open("ab") as file:
        if not lock_file(file, wait=False):
            raise BackupFailed(f"Another backup is writing {target}: wait for its end, or name another file.")
        try:
            # the remains of a killed backup
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            _require_absent(target)
            unfinished.rename(target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def archive_writer(file: IO[bytes], now: datetime, copied: Copied) -> Iterator[ArchiveWriter]:
    with (
        gzip.GzipFile("", "wb", LEVEL, file, int(now.timestamp())) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        yield ArchiveWriter(archive, now, copied)


def verify_archive(file: Path, copied: Copied) -> BackupManifest:
    """Compare every member with the manifest.

    Raises:
        BackupDamaged: the file is no backup, or a member is missing, added or changed; names the member.
    """
    members: dict[str, ArchivedFile] = {}
    manifest: BackupManifest | None = None
    with _opened(file) as archive:
        for name, content in archive.members():
            if name == MANIFEST:
                manifest = _manifest(file, content.read())
            else:
                members[name] = _copy(content, len, copied)
    if manifest is None:
        raise BackupDamaged(f"{file} has no manifest: the file is no backup of CLM, or was cut off.")
    for name in sorted(manifest.members.keys() | members.keys()):
        if manifest.members.get(name) != members.get(name):
            raise BackupDamaged(f"{file}: {name} is missing, added or changed. Use another backup.")
    return manifest


def extract(file: Path, manifest: BackupManifest, place_of: Callable[[str], Path], copied: Copied) -> None:
    """Write the members of a verified backup.

    Args:
        place_of: path for a member; its folder is made.

    Raises:
        BackupDamaged: the file was changed after the verification.
    """
    with _opened(file) as archive:
        for name, content in archive.members():
            if name == MANIFEST:
                continue
            place = place_of(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as output:
                written = _copy(content, output.write, copied)
            if manifest.members.get(name) != written:
                raise BackupDamaged(f"{file}: {name} was changed during the restoration: begin again.")


def _copy(content: IO[bytes], write: Callable[[bytes], object], copied: Copied) -> ArchivedFile:
    """Hand a member on piece by piece; returns size and digest."""
    read = _HashedReader(content, copied)
    while piece := read.read(CHUNK):
        write(piece)
    return ArchivedFile(size=read.size, sha256=read.digest)


@dataclass
class _OpenArchive:
    file: Path
    archive: tarfile.TarFile
    last: str = "the beginning"
    """ArchivedFile read at present."""

    def members(self) -> Iterator[tuple[str, IO[bytes]]]:
        """Names and contents of the members, in order; each is read before the next.

        Raises:
            BackupDamaged: a member is no file, or leads out of the backup.
        """
        for entry in self.archive:
            self.last = entry.name
            _require_plain(self.file, entry)
            content = self.archive.extractfile(entry)
            assert content is not None
            yield entry.name, content
            # otherwise kept for a second look
            self.archive.members = []  # type: ignore[attr-defined]
        assert self.archive.fileobj is not None
        # the end holds the checksum of the whole
        while self.archive.fileobj.read(CHUNK):
            pass


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[_OpenArchive]:
    """
    Raises:
        BackupDamaged: the file cannot be read to its end.
    """
    opened: _OpenArchive | None = None
    try:
        with tarfile.open(file, "r:gz") as archive:
            opened = _OpenArchive(file, archive)
            yield opened
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        last = "the beginning" if opened is None else opened.last
        raise BackupDamaged(f"{file} is damaged at {last}: {error}. Use another backup.") from error


def _require_plain(file: Path, entry: tarfile.TarInfo) -> None:
    path = PurePosixPath(entry.name)
    placed = entry.name == MANIFEST or (len(path.parts) > 1 and path.parts[0] in (HOME, DATABASES))
    if not entry.isfile() or not placed or ".." in path.parts or path.as_posix() != entry.name:
        raise BackupDamaged(f"{file}: {entry.name} is no part of a backup of CLM.")


def _manifest(file: Path, content: bytes) -> BackupManifest:
    try:
        manifest = BackupManifest.model_validate_json(content)
    except ValidationError as error:
        raise BackupDamaged(
            f"{file}: {MANIFEST} cannot be read; a newer release may have written it: {error}"
        ) from error
    if manifest.format != FORMAT:
        raise BackupDamaged(
            f"{file} has the format {manifest.format}, this release reads {FORMAT}: install "
            f"CLM {manifest.clm_version}, or a newer release."
        )
    return manifest


def _require_absent(target: Path) -> None:
    if os.path.lexists(target):
        raise AlreadyExists(f"{target} exists, and a backup overwrites nothing: name another file.")


@contextlib.contextmanager
def _failures(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupFailed(
            f"{target} cannot be written: {error.strerror or error}. Nothing of it was kept."
        ) from error
