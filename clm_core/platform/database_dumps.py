"""Dumps of the databases at one moment, by PostgreSQL's own programs, while other processes go on writing.

A snapshot of PostgreSQL belongs to one database. The snapshots of several databases stand for the same moment
because no transaction can change the ledger between the first and the last snapshot: the ledger's tables are
locked against changes for milliseconds. The dumps show the state that a crash at the same moment would have
left, and every process of CLM survives a crash.
"""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import IsolationLevel
from psycopg.sql import SQL, Identifier

from clm_core.domain.errors import BackupFailed, RestoreRefused
from clm_core.platform.database import Database, Name, program
from clm_core.platform.locks import AdvisoryLock

DUMPED: tuple[Name, ...] = ("ledger", "mlflow", "optuna")
"""Databases of a backup. Prefect's database holds runs and schedules, which `clm up` makes anew."""
LOCKED_WITHIN_SECONDS = 60
PAUSE_SECONDS = 0.02
_UNLIMITED = "-c idle_in_transaction_session_timeout=0 -c statement_timeout=0"
_TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1
"""
_VACUUMS = """
SELECT pid, relname FROM pg_locks JOIN pg_class ON pg_class.oid = relation
WHERE granted AND mode = 'ShareUpdateExclusiveLock' AND relnamespace = 'public'::regnamespace
AND relkind IN ('r', 'p') AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class ConsistentCut:
    """Open transactions with the state of all databases at one moment."""

    database: Database
    connections: Mapping[Name, Connection]
    snapshots: Mapping[Name, str]
    """Exported snapshots, by database."""

    def dump(self, name: Name, file: Path) -> None:
        """Write the dump of a database.

        Raises:
            BackupFailed: `pg_dump` failed, for example for want of space.
        """
        done = _run(
            self.database.address(name),
            "pg_dump",
            *("--format=custom", "--compress=1", "--no-owner", f"--snapshot={self.snapshots[name]}"),
            f"--file={file}",
        )
        if done.returncode != 0:
            raise BackupFailed(f"The database {name} cannot be dumped: {done.stderr.strip()}")


@contextlib.contextmanager
def consistent_cut(database: Database) -> Iterator[ConsistentCut]:
    """Transactions with the state of all databases at one moment, while the block lasts.

    Files of versions are not removed meanwhile.

    Raises:
        BackupFailed: the ledger was written to without a pause, or the server refused.
    """
    with contextlib.ExitStack() as stack:
        try:
            connections: dict[Name, Connection] = {
                name: stack.enter_context(_connection(database, name)) for name in DUMPED
            }
            lock_shared = "SELECT pg_advisory_xact_lock_shared(%s)"
            keeper = stack.enter_context(psycopg.connect(database.address("ledger"), options=_UNLIMITED))
            keeper.execute(lock_shared, [AdvisoryLock.FILES_OF_VERSIONS])
            with _ledger_unchanged(database):
                snapshots = {name: _exported(connection) for name, connection in connections.items()}
        except psycopg.Error as error:
            raise BackupFailed(f"PostgreSQL refused the snapshots of a backup: {error}") from error
        yield ConsistentCut(database, connections, snapshots)


def is_empty(database: Database, name: Name) -> bool:
    """True for a database without tables."""
    with psycopg.connect(database.address(name)) as connection:
        return not connection.execute(_TABLES).fetchall()


def restore(database: Database, name: Name, file: Path) -> None:
    """Restore a dump into an empty database, in one transaction.

    Raises:
        RestoreRefused: `pg_restore` failed; the database is still empty.
    """
    address = database.address(name)
    if name == "ledger":
        _prepare_role(database)
    with tempfile.NamedTemporaryFile("w", suffix=".list") as contents:
        # default rights name the former user of the server; those of this user are set beside
        listed = _require(_run(address, "pg_restore", "--list", str(file), connects=False), name)
        contents.write("".join(line for line in listed.splitlines(True) if " DEFAULT ACL " not in line))
        contents.flush()
        options = ("--no-owner", "--exit-on-error", "--single-transaction", f"--use-list={contents.name}")
        _require(_run(address, "pg_restore", *options, str(file)), name)
    if name == "ledger":
        _set_default_rights(database)


def clear(database: Database, name: Name) -> None:
    """Remove all tables of a database, after an interrupted restoration."""
    with psycopg.connect(database.address(name)) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")


def claim(database: Database, restoration: str) -> None:
    """Note the restoration in the ledger's database."""
    _comment(database, f"clm restore {restoration}")


def is_claimed(database: Database, restoration: str) -> bool:
    with psycopg.connect(database.address("ledger")) as connection:
        noted = connection.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    return noted == (f"clm restore {restoration}",)


def release(database: Database) -> None:
    """Remove the note of a restoration."""
    _comment(database, None)


def _comment(database: Database, comment: str | None) -> None:
    with psycopg.connect(database.address("ledger")) as connection:
        name = Identifier(connection.info.dbname)
        connection.execute(SQL("COMMENT ON DATABASE {} IS {}").format(name, comment))


def _connection(database: Database, name: Name) -> Connection:
    connection = psycopg.connect(database.address(name), options=_UNLIMITED)
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    return connection


def _exported(connection: Connection) -> str:
    row = connection.execute("SELECT pg_export_snapshot()").fetchone()
    assert row is not None
    return str(row[0])


@contextlib.contextmanager
def _ledger_unchanged(database: Database) -> Iterator[None]:
    """No transaction changes the ledger while the block lasts."""
    deadline = time.monotonic() + LOCKED_WITHIN_SECONDS
    with psycopg.connect(database.address("ledger")) as connection:
        interrupted: set[tuple[int, str]] = set()
        while not _locked(connection):
            _interrupt_vacuums(connection, interrupted)
            if time.monotonic() > deadline:
                raise BackupFailed(
                    f"The ledger was written to for {LOCKED_WITHIN_SECONDS} s without a pause: repeat the "
                    "backup at a quieter time."
                )
            time.sleep(PAUSE_SECONDS)
        yield
        connection.rollback()


def _locked(connection: Connection) -> bool:
    """True if all tables are locked against changes; never waits, and so takes part in no deadlock."""
    tables = [Identifier(name) for (name,) in connection.execute(_TABLES)]
    if not tables:
        return True
    try:
        connection.execute(SQL("LOCK TABLE {} IN SHARE MODE NOWAIT").format(SQL(", ").join(tables)))
    except psycopg.errors.LockNotAvailable:
        connection.rollback()
        return False
    return True


def _interrupt_vacuums(connection: Connection, interrupted: set[tuple[int, str]]) -> None:
    """Let PostgreSQL cancel an autovacuum of the ledger: for a lock that waits alone, and so in no deadlock.

    Args:
        interrupted: process and table of the vacuums interrupted before; grows. A vacuum started by hand goes
            on, and is asked once.
    """
    for vacuum in connection.execute(_VACUUMS).fetchall():
        if vacuum not in interrupted:
            interrupted.add(vacuum)
            connection.execute("SET LOCAL lock_timeout = '3s'")
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                connection.execute(SQL("LOCK TABLE {} IN SHARE MODE").format(Identifier(vacuum[1])))
        connection.rollback()
    connection.rollback()


def _prepare_role(database: Database) -> None:
    """Make the role of the application, without default rights.

    Restored tables would get the default rights beside the rights in the dump: the application could change
    append-only tables.

    Raises:
        RestoreRefused: the user of the server can neither make nor assume the role.
    """
    with psycopg.connect(database.address("ledger"), autocommit=True) as connection:
        try:
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'clm_app'").fetchone()
            if known is None:
                connection.execute("CREATE ROLE clm_app NOLOGIN")
                connection.execute("GRANT clm_app TO CURRENT_USER")
            connection.execute("SET ROLE clm_app")
            connection.execute("RESET ROLE")
        except psycopg.errors.InsufficientPrivilege as error:
            raise RestoreRefused(
                "The ledger needs the role clm_app, which the user of CLM_DATABASE_URL can neither create "
                "nor assume. Have an administrator of the server run, with that user's name: "
                "CREATE ROLE clm_app NOLOGIN; GRANT clm_app TO <user>;"
            ) from error
        # of an interrupted restoration
        connection.execute("ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM clm_app")
        connection.execute("ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM clm_app")


def _set_default_rights(database: Database) -> None:
    """Set the default rights of ledger revision 0002, which a dump leaves out."""
    with psycopg.connect(database.address("ledger"), autocommit=True) as connection:
        connection.execute(
            "ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO clm_app"
        )
        connection.execute("ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO clm_app")


def _require(done: "subprocess.CompletedProcess[str]", name: Name) -> str:
    if done.returncode != 0:
        raise RestoreRefused(f"The database {name} cannot be restored: {done.stderr.strip()}")
    return done.stdout


def _run(address: str, name: str, *options: str, connects: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a program of PostgreSQL; other users could read a password among the arguments."""
    parts = urlsplit(address)
    public = parts._replace(netloc=_without_password(parts.netloc)).geturl()
    password = {} if parts.password is None else {"PGPASSWORD": unquote(parts.password)}
    return subprocess.run(
        [str(program(name)), *(_target(public) if connects else ()), *options],
        env=os.environ | password,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _target(address: str) -> Sequence[str]:
    return ("--no-password", f"--dbname={address}")


def _without_password(netloc: str) -> str:
    user, at, host = netloc.rpartition("@")
    return f"{user.partition(':')[0]}{at}{host}"
