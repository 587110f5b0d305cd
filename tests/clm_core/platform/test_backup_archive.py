"""The file of a backup gives back what was put in, or names the part that it cannot give back."""

import gzip
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clm_core.domain.errors import AlreadyExists, BackupDamaged, BackupFailed
from clm_core.platform.backup_archive import (
    FORMAT,
    MANIFEST,
    BackupManifest,
    archive_writer,
    extract,
    new_archive,
    verify_archive,
)

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
CONTENTS = {
    "home/clm.toml": b"[costs]\n",
    "home/data/bars.parquet": bytes(range(256)) * 512,
    "databases/ledger.dump": b"",
}


def nothing(count: int) -> None:
    pass


def write(target: Path, contents: dict[str, bytes], **changed: object) -> BackupManifest:
    with new_archive(target) as file, archive_writer(file, NOW, nothing) as archive:
        for name, content in contents.items():
            archive.add_bytes(name, content)
        manifest = BackupManifest(
            format=FORMAT,
            clm_version="1.0",
            created_at=NOW,
            home="/srv/home",
            embedded=True,
            ledger_revision="0001",
            audit_entries=0,
            audit_head="",
            left_out=(),
            incomplete=(),
            members=archive.members,
        ).model_copy(update=changed)
        archive.add_bytes(MANIFEST, manifest.model_dump_json().encode())
    return manifest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clm.tar.gz"


def test_an_archive_gives_back_what_was_put_in(file: Path, tmp_path: Path) -> None:
    written = write(file, CONTENTS)
    manifest = verify_archive(file, nothing)
    assert manifest == written
    extract(file, manifest, lambda name: tmp_path / "out" / name, nothing)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in CONTENTS} == CONTENTS


def test_an_archive_is_readable_by_its_owner_alone_where_the_umask_says_so(file: Path) -> None:
    write(file, CONTENTS)
    with tarfile.open(file) as archive:
        assert {member.mode for member in archive} == {0o600}


def test_an_archive_that_exists_is_not_overwritten(file: Path) -> None:
    file.write_bytes(b"precious")
    with pytest.raises(AlreadyExists, match=r"clm\.tar\.gz exists"):
        write(file, CONTENTS)
    assert file.read_bytes() == b"precious"


def test_an_archive_that_fails_leaves_nothing(file: Path) -> None:
    with pytest.raises(RuntimeError), new_archive(file):
        raise RuntimeError
    assert list(file.parent.iterdir()) == []


def test_two_backups_do_not_write_one_file(file: Path) -> None:
    with new_archive(file), pytest.raises(BackupFailed, match="Another backup is writing"), new_archive(file):
        pass


def test_a_disk_without_space_is_named_and_nothing_is_kept(file: Path) -> None:
    with pytest.raises(BackupFailed, match="No space left on device"), new_archive(file):
        raise OSError(28, "No space left on device")
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_an_archive_that_is_cut_off_is_refused(file: Path, share: float) -> None:
    write(file, CONTENTS)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BackupDamaged, match=r"clm\.tar\.gz"):
        verify_archive(file, nothing)


def test_a_changed_byte_is_found_unless_the_contents_are_the_same(file: Path) -> None:
    manifest = write(file, {"home/clm.toml": b"[costs]\n"})
    content = bytearray(file.read_bytes())
    contents = gzip.decompress(content)
    for place in range(10, len(content), 3):
        content[place] ^= 0x10
        file.write_bytes(content)
        try:
            assert verify_archive(file, nothing) == manifest
            # a code of the compression that no part of the contents uses
            assert gzip.decompress(content) == contents
        except BackupDamaged:
            pass
        content[place] ^= 0x10


def test_a_changed_member_is_named(file: Path) -> None:
    write(file, CONTENTS)
    plain = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(plain.replace(b"[costs]", b"[COSTS]")))
    with pytest.raises(BackupDamaged, match=r"home/clm\.toml is missing, added or changed"):
        verify_archive(file, nothing)


@pytest.mark.parametrize("name", ["home/../../etc/passwd", "/etc/passwd", "etc/passwd", "home", "home//x"])
def test_a_member_that_leads_out_of_the_home_is_refused(file: Path, name: str) -> None:
    write(file, {name: b"x"})
    with pytest.raises(BackupDamaged, match="no part of a backup"):
        verify_archive(file, nothing)


def test_an_archive_of_a_newer_format_names_the_release_to_install(file: Path) -> None:
    write(file, CONTENTS, format=FORMAT + 1, clm_version="9.0")
    with pytest.raises(BackupDamaged, match=r"install CLM 9\.0"):
        verify_archive(file, nothing)


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"no tar"), gzip.compress(b"")],
    ids=["empty", "no gzip", "no tar", "nothing compressed"],
)
def test_a_file_that_is_no_archive_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(BackupDamaged, match=r"clm\.tar\.gz"):
        verify_archive(file, nothing)
