"""PostgreSQL server for ledger, MLflow and Prefect: embedded under the home folder, or named by the settings.

Files of the embedded server in the home folder:

    postgres/         data and log of the server; belongs to the user the server runs as
    postgres.gate     locked during a start or a stop
    postgres.users    locked, shared, by every process that uses the server; the last process stops the server
    postgres.alive    locked by the server's own processes, which inherit the lock

A home with the file `restore.unfinished` is opened by `clm restore` alone: parts of the home may be missing.

The kernel frees a lock when its last holder dies. A killed process leaves nothing to clean up, and neither a
stale postmaster.pid, nor a zombie, nor a reused process number is taken for a running server.

Linux and macOS only: Windows has no such locks, so `database_url` must name a server there.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, get_args
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import SecretStr

from clm_core.domain.errors import DatabaseUnavailable, HomeUnfinished
from clm_core.platform.file_locks import lock_file
from clm_core.platform.locks import AdvisoryLock
from clm_core.platform.private_files import admit, let_all_pass, secure_home

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

Name = Literal["ledger", "mlflow", "prefect", "optuna"]
Driver = Literal["psycopg", "asyncpg"]

SERVER_USER = "embedded_postgres"
"""User of a server started by root, since PostgreSQL refuses to run as root."""
HOME = "CLM_HOME"
RESTORE_MARKER = "restore.unfinished"
"""File of a home whose restoration from a backup has begun and not ended."""
READY_WITHIN_SECONDS = 120
STOPPED_WITHIN_SECONDS = 120
RELEASED_WITHIN_SECONDS = 30
"""Time from the end of the server to the release of its lock, by processes that end on a busy machine."""
SOCKET_PATH_LIMIT = 103
"""Longest path of a socket, in bytes: 103 on macOS, 107 on Linux."""


class _User(NamedTuple):
    """Operating-system user of the server, where different from the present user."""

    uid: int
    gid: int


_OPTIONS = {
    "listen_addresses": "",
    "port": "5432",
    # beside the private folder of the sockets
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    # the system keeps what is read in its cache of files; the default of 128 MB fills in days at rest
    "shared_buffers": "32MB",
    # the default is three processes that read for the others
    "io_method": "sync",
    # no replication: less to write, equally durable
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "log_checkpoints": "off",
}


@dataclass(frozen=True)
class Database:
    """A reachable server with the four databases of an installation."""

    server: str = field(repr=False)
    """`postgresql://…` including the password; the path names an existing database."""
    embedded: bool = False
    """True for the embedded server, which no other installation uses."""

    def url(self, name: Name, driver: Driver = "psycopg") -> str:
        """SQLAlchemy URL of a database; contains the password and must not be printed."""
        parts = urlsplit(self.server)
        query = dict(parse_qsl(parts.query))
        if driver == "asyncpg" and "sslmode" in query:
            query["ssl"] = query.pop("sslmode")
        return parts._replace(
            scheme=f"postgresql+{driver}", path=f"/{_database(name)}", query=urlencode(query, safe="/")
        ).geturl()

    def address(self, name: Name) -> str:
        """URL of a database for psycopg and the programs of PostgreSQL; contains the password."""
        return urlsplit(self.server)._replace(path=f"/{_database(name)}").geturl()


@contextlib.contextmanager
def open_database(
    home: Path, database_url: SecretStr | None = None, *, restoring: bool = False
) -> Iterator[Database]:
    """Run or reach the server while the block lasts, and create missing databases.

    Args:
        home: folder of the embedded server.
        database_url: URL of another server; None for the embedded server.
        restoring: True for the restoration of the home itself.

    Raises:
        HomeUnfinished: the restoration of the home was interrupted.
        HomeNotPrivate: the home belongs to another user.
        DatabaseUnavailable: the server cannot be started or reached, or a database is missing and the
            user may not create databases.
    """
    if not restoring and (home / RESTORE_MARKER).exists():
        raise HomeUnfinished(
            f"The restoration of {home} was interrupted: repeat `clm restore`, or remove the folder."
        )
    secure_home(home)
    if database_url is None:
        with _own_server(home) as server:
            yield Database(server, embedded=True)
    else:
        server = _named_server(database_url.get_secret_value())
        _complete(server)
        yield Database(server)


def stop_left_server(home: Path) -> None:
    """Stop the embedded server of a home without living processes; leave a server in use alone."""
    with _opened(home / "postgres.users") as users, _gate(home):
        if lock_file(users, wait=False):
            _stop(home)


def revive(home: Path) -> bool:
    """Restart the embedded server if the server died under its users; True after a restart.

    The restarted server listens at the same address.
    """
    with _gate(home), _opened(home / "postgres.alive") as alive:
        if not lock_file(alive, wait=False):
            return False
        _start(home, alive)
        return True


def sibling(url: str, of: Name, name: Name) -> str | None:
    """URL of another database of the installation on the same server; None for a URL of another database.

    Args:
        of: database that the URL must name.
    """
    parts = urlsplit(url)
    if not parts.scheme.startswith("postgresql") or parts.path != f"/{_database(of)}":
        return None
    return parts._replace(path=f"/{_database(name)}").geturl()


def _database(name: Name) -> str:
    return f"clm_{name}"


def _named_server(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(scheme="postgresql", path=parts.path.rstrip("/") or "/postgres").geturl()


def _complete(server: str) -> None:
    """Create the databases that a server lacks."""
    import psycopg

    try:
        connection = psycopg.connect(server, autocommit=True, connect_timeout=10)
    except psycopg.Error as error:
        raise _refused(error) from error
    with connection:
        _create_missing(connection)


def _create_missing(connection: "Connection[TupleRow]") -> None:
    import psycopg
    from psycopg.sql import SQL, Identifier

    required = [_database(name) for name in get_args(Name)]

    def missing() -> list[str]:
        present = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        return [name for name in required if name not in present]

    try:
        if missing():
            # two processes could both see a database as missing
            connection.execute("SELECT pg_advisory_lock(%s)", [AdvisoryLock.DATABASE_CREATION])
            for name in missing():
                connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseUnavailable(
            f"The user of CLM_DATABASE_URL may not create databases. Grant the user CREATEDB, or let an "
            f"administrator create {', '.join(required)}: docs/how-to/run-the-stack.md has the SQL."
        ) from error
    except psycopg.Error as error:
        raise _refused(error) from error


def _refused(error: Exception) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"PostgreSQL refuses the connection; if CLM_DATABASE_URL is set, check it: {error}"
    )


@contextlib.contextmanager
def _own_server(home: Path) -> Iterator[str]:
    if sys.platform == "win32":
        raise DatabaseUnavailable("On Windows set CLM_DATABASE_URL to a PostgreSQL server.")
    with _opened(home / "postgres.users") as users:
        try:
            with _gate(home):
                lock_file(users, shared=True)
                sockets = _running(home)
            yield _url(sockets)
        finally:
            with _gate(home):
                if lock_file(users, wait=False):
                    _stop(home)


def _url(sockets: Path) -> str:
    return f"postgresql://postgres:@/postgres?host={quote(str(sockets))}&port={_OPTIONS['port']}"


@contextlib.contextmanager
def _gate(home: Path) -> Iterator[None]:
    with _opened(home / "postgres.gate") as gate:
        lock_file(gate)
        yield


def _opened(file: Path) -> IO[bytes]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("ab")
    except OSError as error:
        raise DatabaseUnavailable(
            f"{file} cannot be written ({error.strerror}): set CLM_HOME to a folder of your own."
        ) from error


def _running(home: Path) -> Path:
    """Folder of the sockets of an answering server with all databases, started if none is alive."""
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        with _opened(home / "postgres.alive") as alive:
            if lock_file(alive, wait=False):
                _start(home, alive)
        sockets = _sockets_in_use(home)
        if sockets is not None and (connection := _connection(sockets)) is not None:
            with connection:
                _create_missing(connection)
            return sockets
        time.sleep(0.05)
    raise DatabaseUnavailable(
        f"PostgreSQL under {home} runs but has not answered for {READY_WITHIN_SECONDS} s: see {_log(home)}, "
        f"or end the processes that hold {home / 'postgres.alive'}."
    )


def _connection(sockets: Path) -> "Connection[TupleRow] | None":
    """Connection to the server; None while the server does not answer."""
    import psycopg

    try:
        return psycopg.connect(_url(sockets), autocommit=True, connect_timeout=2)
    except psycopg.OperationalError:
        return None


def _start(home: Path, alive: IO[bytes]) -> None:
    """Start the server. The caller holds the lock of `postgres.alive`: no earlier server is left."""
    user = _server_user(home)
    _check_access(user, _programs(), "a virtual environment")
    _check_access(user, home, HOME)
    if not _data(home).exists():
        _initialise(home, user, alive)
    _hand_over(_data(home), user)
    (_data(home) / "postmaster.pid").unlink(missing_ok=True)
    sockets = _empty_sockets(home, user)
    options = _OPTIONS | {"unix_socket_directories": f'"{sockets}"'}
    started = _run(
        *(str(_programs() / "pg_ctl"), "start", "-D", str(_data(home)), "-l", str(_log(home))),
        *("-w", "-t", str(READY_WITHIN_SECONDS)),
        *("-o", " ".join(f"-c {name}={shlex.quote(value)}" for name, value in options.items())),
        user=user,
        inherited=alive,
    )
    if started.returncode != 0:
        raise DatabaseUnavailable(
            f"PostgreSQL does not start:\n{started.stdout}{_end_of_log(home)}\nMore is in {_log(home)}."
        )


def _initialise(home: Path, user: _User | None, alive: IO[bytes]) -> None:
    new_data = home / "postgres.new"
    # the remains of a killed attempt
    shutil.rmtree(new_data, ignore_errors=True)
    _make_private(new_data, user)
    initialised = _run(
        *(str(_programs() / "initdb"), "-D", str(new_data), "--username=postgres", "--auth=trust"),
        *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        user=user,
        inherited=alive,
    )
    if initialised.returncode != 0:
        raise DatabaseUnavailable(f"PostgreSQL cannot set up its data under {home}:\n{initialised.stdout}")
    new_data.rename(_data(home))


def _stop(home: Path) -> None:
    with _opened(home / "postgres.alive") as alive:
        sockets = _sockets_in_use(home)
        # a server without sockets was interrupted during the start and stops by itself
        if sockets is None or lock_file(alive, wait=False):
            return
        _run(
            *(str(_programs() / "pg_ctl"), "stop", "-D", str(_data(home)), "-m", "fast"),
            *("-w", "-t", str(STOPPED_WITHIN_SECONDS)),
            user=_server_user(home),
        )
        deadline = time.monotonic() + RELEASED_WITHIN_SECONDS
        while not lock_file(alive, wait=False):
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(f"PostgreSQL under {home} does not stop; see {_log(home)}.")
            time.sleep(0.01)
    shutil.rmtree(sockets, ignore_errors=True)


def _data(home: Path) -> Path:
    return home / "postgres"


def _log(home: Path) -> Path:
    return _data(home) / "server.log"


def _end_of_log(home: Path) -> str:
    if not _log(home).exists():
        return ""
    return "\n".join(_log(home).read_text(errors="replace").splitlines()[-5:])


def _sockets_in_use(home: Path) -> Path | None:
    """Folder of the sockets as noted by the server, None before the note is written.

    The process that started the server may use another folder for temporary files.
    """
    noted = _data(home) / "postmaster.pid"
    lines = noted.read_text().splitlines() if noted.exists() else []
    return Path(lines[4]) if len(lines) > 4 and lines[4] else None


def _empty_sockets(home: Path, user: _User | None) -> Path:
    """A private, empty folder, named after the identity of the data folder instead of its path.

    A home that was deleted and created again does not meet the sockets of the server of the deleted home.
    """
    data = _data(home).stat()
    folder = Path(tempfile.gettempdir(), f"clm-{data.st_dev:x}-{data.st_ino:x}")
    owners = (data.st_uid, os.geteuid())
    if os.path.lexists(folder) and (folder.is_symlink() or folder.stat().st_uid not in owners):
        # made by another user of the machine, who knows the name
        folder = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}")
    if len(os.fsencode(folder / f".s.PGSQL.{_OPTIONS['port']}")) > SOCKET_PATH_LIMIT:
        raise DatabaseUnavailable(f"{folder} is too long a path for sockets: set TMPDIR to a shorter one.")
    _check_access(user, folder.parent, "TMPDIR")
    if folder.is_dir():
        shutil.rmtree(folder)
    _make_private(folder, user)
    return folder


def _make_private(folder: Path, user: _User | None) -> None:
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise DatabaseUnavailable(
            f"{folder} cannot be made ({error.strerror}): set TMPDIR to a folder of your own."
        ) from error
    if user is not None:
        os.chown(folder, user.uid, user.gid)


def server_account() -> _User | None:
    """User of a server started by root; None for any other user."""
    return _added_user() if os.geteuid() == 0 else None


def program(name: str) -> Path:
    """Program of PostgreSQL, as installed with the embedded server: `pg_dump`."""
    return _programs() / name


@cache
def _programs() -> Path:
    return Path(str(distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin")))


def _run(
    *command: str, user: _User | None, inherited: IO[bytes] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
        # initdb writes both into the server's configuration
        env=os.environ | {"LC_ALL": "C", "TZ": "UTC"},
        pass_fds=() if inherited is None else (inherited.fileno(),),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _server_user(home: Path) -> _User | None:
    if os.geteuid() == 0 and _data(home).exists():
        owner = _data(home).stat()
        if owner.st_uid != 0:
            return _User(owner.st_uid, owner.st_gid)
    return server_account()


def _hand_over(data: Path, user: _User | None) -> None:
    """Give data that a copy by root left to root to the server's user."""
    if user is None or data.stat().st_uid != 0:
        return
    # the folder itself last: a killed attempt is repeated
    for path in (*data.rglob("*"), data):
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _added_user() -> _User:
    import pwd

    # several attempts, since /etc/passwd is locked while another process adds the user
    for _ in range(50):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(SERVER_USER)
            return _User(entry.pw_uid, entry.pw_gid)
        with contextlib.suppress(FileNotFoundError):
            _run("useradd", "--system", "--no-create-home", "--shell", "/bin/false", SERVER_USER, user=None)
        time.sleep(0.1)
    raise DatabaseUnavailable(
        f"PostgreSQL does not run as root, and the user {SERVER_USER} cannot be added: "
        "add the user by hand, or start CLM as an ordinary user."
    )


def _check_access(user: _User | None, target: Path, movable: str) -> None:
    """Ensure that the server's user can reach a folder, for example in a clone under /root.

    Args:
        movable: name of the setting or thing to move to another folder, for the error message.
    """
    if user is None:
        return
    path = [str(folder) for folder in reversed((target, *target.parents))]
    script = 'for folder; do test -x "$folder" || { echo "$folder"; exit; }; done'
    while closed := _run("/bin/sh", "-c", script, "sh", *path, user=user).stdout.strip():
        folder = Path(closed)
        # the home, unlike the folders above, was closed by CLM itself
        is_home = movable == HOME and folder == target
        if not admit(folder, user.uid) and not (is_home and let_all_pass(folder)):
            raise DatabaseUnavailable(
                f"PostgreSQL does not run as root, and the server's user may not enter {closed}. "
                f"Use {movable} in a folder that other users may enter, or run: chmod o+x {closed}"
            )
