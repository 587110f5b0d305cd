"""Privacy of a home: its folders, files and secrets belong to one user of the machine.

New files are private by the umask of every process (`keep_files_private`). The folders and files that an
earlier release left open to other users are closed at the first use of the home (`secure_home`). A home whose
top folder is closed costs one look at that folder.

PostgreSQL refuses to run as root. Started by root, the server runs as another user, who passes through the
closed home by an entry in its access control list, or, on a file system without such lists, by the right of
all users to pass through the top folder alone (mode 0711).
"""

import contextlib
import os
import secrets
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from clm_core.domain.errors import HomeNotPrivate, SecretExposed

UMASK = 0o077
"""New files are readable by their owner alone."""
OTHERS = 0o077
"""Rights of the group and of all other users."""
RENEWED = "`clm down` and `clm up` replace the secret"


def keep_files_private() -> int:
    """Make all new files of this process and its children private; the former umask."""
    return os.umask(UMASK)


@contextlib.contextmanager
def files_private() -> Iterator[None]:
    """Make new files private while the block lasts, in a process whose other files are the user's own."""
    former = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(former)


def secure_home(home: Path) -> None:
    """Make a missing home, or close an open home to the other users of the machine.

    Named users in an access control list of the home keep their rights: somebody granted them on purpose.

    Raises:
        HomeNotPrivate: the home belongs to another user, or cannot be made.
    """
    if sys.platform == "win32":
        return
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = home.stat()
    except OSError as error:
        raise HomeNotPrivate(
            f"{home} cannot be used as a home ({error.strerror}): set CLM_HOME to a folder of your own."
        ) from error
    user = os.geteuid()
    # root prepares folders for the users of containers and services, who may not change their modes
    if user != 0 and folder.st_uid == 0:
        return
    if user not in (0, folder.st_uid):
        raise HomeNotPrivate(
            f"{home} belongs to the user {_name(folder.st_uid)}: work as that user, or set CLM_HOME to a "
            "folder of your own."
        )
    if _is_closed(home, folder.st_mode, passable=user == 0):
        return
    for path in _open_paths(home, folder.st_uid):
        with contextlib.suppress(OSError):
            _close(path)
    # the top folder last: a killed attempt is repeated
    _close(home)
    _keep_server_in(home)


def admit(folder: Path, uid: int) -> bool:
    """Let a user pass through a folder without reading the folder's contents.

    Adds an entry to the access control list (format: acl(5), linux/posix_acl_xattr.h). Returns False where an
    entry would not help.
    """
    if not hasattr(os, "setxattr"):
        return False
    entries = _acl(folder)
    before = entries.get((_USER, uid), 0)
    # without a list the rights of the group stand in for the mask
    mask = entries.get((_MASK, _NOBODY), entries[_GROUP, _NOBODY])
    if before & mask & _SEARCH:
        return False
    entries[_USER, uid] = before | _SEARCH
    entries[_MASK, _NOBODY] = mask | _SEARCH
    return _write_acl(folder, entries)


def let_all_pass(home: Path) -> bool:
    """Let all users pass through a home, on a file system without access control lists; False if they may."""
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & _PASS_ALL == _PASS_ALL:
        return False
    home.chmod(mode | _PASS_ALL)
    return True


def stored_secret(file: Path, make: Callable[[], str], remedy: str = RENEWED) -> str:
    """Content of the file of a secret, made at the first call.

    Args:
        remedy: next step where the file is exposed, as a sentence without the full stop.

    Raises:
        SecretExposed: another user could have read or written the file.
    """
    if not file.is_symlink() and not file.exists():
        _write_secret(file, make())
    if problem := exposure(file):
        raise SecretExposed(f"{problem}. {remedy}.")
    return file.read_text(encoding="utf-8")


def renew_exposed_secret(file: Path, make: Callable[[], str]) -> str | None:
    """Replace a secret that another user could have read or written.

    Returns:
        The reason in a sentence, None if the secret was private or missing.

    Raises:
        SecretExposed: the file cannot be removed.
    """
    problem = exposure(file) if file.is_symlink() or file.exists() else None
    if problem is None:
        return None
    try:
        file.unlink()
    except OSError as error:
        raise SecretExposed(f"{problem}, and it cannot be removed ({error.strerror}): remove it.") from error
    _write_secret(file, make())
    return f"{problem}: the secret was replaced."


def close_settings(file: Path, *, has_secrets: bool) -> str | None:
    """Close a settings file with secrets to the other users of the machine.

    A link is followed: the mounted secrets of containers are links. A file of another user, as of root,
    stays as it is.

    Returns:
        A sentence about the change, None if there was none.

    Raises:
        SecretExposed: other users can change the file, and with it the code that CLM loads.
    """
    status = file.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH:
        raise SecretExposed(f"Every user of the machine can change {file}: run chmod 600 {file}")
    if not has_secrets or not mode & OTHERS or status.st_uid != os.geteuid():
        return None
    file.chmod(mode & ~OTHERS)
    return (
        f"{file} holds secrets and was open to other users (mode {mode:04o}): it is private now. If other "
        "people work on this machine, replace the secrets."
    )


def exposure(file: Path) -> str | None:
    """Way in which another user could have read or written a file, None for a private file."""
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        return f"{file} is a link or no file"
    if status.st_uid not in _trusted_owners(file):
        return f"{file} belongs to the user {_name(status.st_uid)}"
    if status.st_mode & OTHERS:
        return f"{file} is open to other users (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def _trusted_owners(file: Path) -> set[int]:
    """This user; for root, who may work in the home of another user, that user as well."""
    user = os.geteuid()
    return {user, file.parent.stat().st_uid} if user == 0 else {user}


def _write_secret(file: Path, secret: str) -> None:
    """Write a secret that is not there yet; of two processes, the first wins."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new_file = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            output.write(secret)
        # complete at the first sight of a concurrent reader
        with contextlib.suppress(FileExistsError):
            os.link(new_file, file)
    finally:
        new_file.unlink()


def _is_closed(folder: Path, mode: int, *, passable: bool) -> bool:
    """True if neither the group nor other users may enter.

    Args:
        passable: other users may pass through without reading, as for the server of root.
    """
    tolerated = _SEARCH if passable else 0
    if mode & stat.S_IRWXO & ~tolerated:
        return False
    return not mode & stat.S_IRWXG or not _acl(folder)[_GROUP, _NOBODY] & ~tolerated


def _open_paths(home: Path, owner: int) -> Iterator[Path]:
    """Folders and files of the owner below the home that are open to others; links are not followed."""
    for folder, folders, files in os.walk(home):
        for name in (*folders, *files):
            path = Path(folder, name)
            with contextlib.suppress(OSError):
                status = path.lstat()
                if status.st_uid == owner and status.st_mode & OTHERS and not path.is_symlink():
                    yield path


def _close(path: Path) -> None:
    """Take the rights of the group and of all others away."""
    entries = _acl(path)
    if (_MASK, _NOBODY) not in entries:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~OTHERS)
        return
    entries |= {(_GROUP, _NOBODY): 0, (_OTHER, _NOBODY): 0}
    _write_acl(path, entries)


def _keep_server_in(home: Path) -> None:
    """Let a server of root, which may be running, go on passing through the home."""
    with contextlib.suppress(FileNotFoundError):
        server = (home / "postgres").stat().st_uid
        if server != home.stat().st_uid and not admit(home, server):
            let_all_pass(home)


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


_ACL = "system.posix_acl_access"
_OWNER = 0x01
_USER = 0x02
_GROUP = 0x04
_MASK = 0x10
_OTHER = 0x20
_NOBODY = 0xFFFFFFFF
_SEARCH = 1
_PASS_ALL = stat.S_IXGRP | stat.S_IXOTH


def _acl(path: Path) -> dict[tuple[int, int], int]:
    """Rights by kind and id of the entries; derived from the mode where the path has no list."""
    try:
        entries = struct.iter_unpack("<HHI", os.getxattr(path, _ACL)[4:])
        return {(tag, owner): rights for tag, rights, owner in entries}
    except (OSError, AttributeError):
        mode = path.stat().st_mode
        return {
            (_OWNER, _NOBODY): mode >> 6 & 7,
            (_GROUP, _NOBODY): mode >> 3 & 7,
            (_OTHER, _NOBODY): mode & 7,
        }


def _write_acl(path: Path, entries: dict[tuple[int, int], int]) -> bool:
    packed = [struct.pack("<HHI", tag, rights, owner) for (tag, owner), rights in sorted(entries.items())]
    try:
        os.setxattr(path, _ACL, struct.pack("<I", 2) + b"".join(packed))
    except OSError:
        return False
    return True
