"""Privacy of homes and secrets on a real file system, from the view of two users of the machine."""

import errno
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clm_core.domain.errors import HomeNotPrivate, SecretExposed
from clm_core.platform import private_files
from clm_core.platform.private_files import (
    admit,
    close_settings,
    renew_exposed_secret,
    secure_home,
    stored_secret,
)

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="clm-shared-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def old_home(shared: Path) -> Path:
    """A home as an earlier release left it: folders 0755, files 0644."""
    home = shared / "home"
    for folder in (home, home / "reports", home / "mlflow" / "artifacts"):
        folder.mkdir(mode=0o755, parents=True)
        folder.chmod(0o755)
    for file in (home / "reports" / "sheet.html", home / "mlflow" / "artifacts" / "trees.ubj"):
        file.write_text("positions")
        file.chmod(0o644)
    return home


def as_nobody(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, check=False
    )


def test_a_new_home_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        secure_home(tmp_path / "deep" / "home")
    finally:
        os.umask(before)
    assert mode(tmp_path / "deep" / "home") == 0o700


def test_everything_in_a_home_of_an_earlier_release_becomes_private(old_home: Path) -> None:
    secure_home(old_home)
    paths = [old_home, *old_home.rglob("*")]
    assert len(paths) == 6
    assert [path for path in paths if mode(path) & 0o077] == []
    assert (old_home / "reports" / "sheet.html").read_text() == "positions"


def test_a_link_in_the_home_leaves_the_file_outside_as_it_is(old_home: Path) -> None:
    outside = old_home.parent / "outside.csv"
    outside.write_text("bars")
    outside.chmod(0o644)
    (old_home / "bars.csv").symlink_to(outside)
    secure_home(old_home)
    assert mode(outside) == 0o644


def test_a_home_that_is_private_is_not_walked_again(old_home: Path) -> None:
    secure_home(old_home)
    (old_home / "reports" / "sheet.html").chmod(0o644)
    secure_home(old_home)
    assert mode(old_home / "reports" / "sheet.html") == 0o644


@needs_root
def test_the_servers_user_passes_through_a_home_that_is_closed_again(old_home: Path) -> None:
    (old_home / "postgres").mkdir(mode=0o700)
    os.chown(old_home / "postgres", NOBODY, NOBODY)
    secure_home(old_home)
    assert as_nobody("ls", old_home / "postgres").returncode == 0
    assert as_nobody("ls", old_home).returncode != 0
    assert as_nobody("cat", old_home / "reports" / "sheet.html").returncode != 0
    old_home.chmod(0o755)
    secure_home(old_home)
    assert as_nobody("ls", old_home / "postgres").returncode == 0
    assert as_nobody("ls", old_home).returncode != 0


@needs_root
def test_without_access_lists_others_pass_through_the_home_and_read_nothing(
    old_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", unsupported)
    (old_home / "postgres").mkdir(mode=0o700)
    os.chown(old_home / "postgres", NOBODY, NOBODY)
    secure_home(old_home)
    secure_home(old_home)
    assert mode(old_home) == 0o711
    assert as_nobody("ls", old_home / "postgres").returncode == 0
    assert as_nobody("ls", old_home).returncode != 0
    assert as_nobody("cat", old_home / "reports" / "sheet.html").returncode != 0


@needs_root
def test_a_folder_closed_by_chmod_lets_an_admitted_user_pass_again(shared: Path) -> None:
    folder = shared / "folder"
    folder.mkdir()
    assert admit(folder, NOBODY)
    folder.chmod(0o700)
    assert as_nobody("test", "-x", folder).returncode != 0
    assert admit(folder, NOBODY)
    assert as_nobody("test", "-x", folder).returncode == 0


@needs_root
def test_the_home_of_another_user_is_refused(old_home: Path) -> None:
    os.chown(old_home, 1234, 1234)
    child = os.fork()
    if child == 0:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            secure_home(old_home)
        except HomeNotPrivate as error:
            os._exit(0 if "belongs to the user 1234" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_secret_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    assert stored_secret(file, lambda: "first") == "first"
    assert stored_secret(file, lambda: "second") == "first"
    assert mode(file) == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("rights", [0o604, 0o640, 0o620, 0o602])
def test_a_secret_that_others_could_read_or_write_is_refused_and_replaced(
    tmp_path: Path, rights: int
) -> None:
    file = tmp_path / "secret"
    stored_secret(file, lambda: "read by others")
    file.chmod(rights)
    with pytest.raises(SecretExposed, match=f"open to other users .mode 0{rights:o}.*clm up"):
        stored_secret(file, lambda: "new")
    assert "was replaced" in (renew_exposed_secret(file, lambda: "new") or "")
    assert stored_secret(file, lambda: "another") == "new"
    assert renew_exposed_secret(file, lambda: "another") is None


def test_a_secret_behind_a_link_is_refused_and_the_link_replaced(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("chosen by another user")
    elsewhere.chmod(0o600)
    file = tmp_path / "secret"
    file.symlink_to(elsewhere)
    with pytest.raises(SecretExposed, match="is a link"):
        stored_secret(file, lambda: "new")
    renew_exposed_secret(file, lambda: "new")
    assert stored_secret(file, lambda: "another") == "new"
    assert elsewhere.read_text() == "chosen by another user"


@needs_root
def test_a_secret_of_another_user_is_refused_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    stored_secret(file, lambda: "known to nobody")
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(SecretExposed, match="belongs to the user nobody"):
        stored_secret(file, lambda: "new")
    renew_exposed_secret(file, lambda: "new")
    assert stored_secret(file, lambda: "another") == "new"


@pytest.mark.parametrize(
    ("has_secrets", "rights", "expected"),
    [(True, 0o644, 0o600), (True, 0o600, 0o600), (False, 0o644, 0o644)],
    ids=["secrets in the open", "secrets in private", "no secrets"],
)
def test_a_settings_file_with_secrets_becomes_private(
    tmp_path: Path, has_secrets: bool, rights: int, expected: int
) -> None:
    file = tmp_path / "clm.toml"
    file.touch()
    file.chmod(rights)
    said = close_settings(file, has_secrets=has_secrets)
    assert mode(file) == expected
    assert (said is not None) == (rights != expected)


def test_a_settings_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "clm.toml"
    file.touch()
    file.chmod(0o646)
    with pytest.raises(SecretExposed, match="chmod 600"):
        close_settings(file, has_secrets=False)


def test_files_of_a_process_are_private_from_its_start(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        assert private_files.keep_files_private() == 0o022
        (tmp_path / "file").touch()
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == 0o600
