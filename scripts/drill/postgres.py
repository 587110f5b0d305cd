"""A PostgreSQL server over TCP with a password, from the programs of the embedded server."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from clm_core.platform.database import program, server_account
from drill.servers import DrillFailed, free_port

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "run-the-stack.md"
ADMIN_PASSWORD = "of-the-administrator"


@dataclass(frozen=True)
class TcpServer:
    """A running server."""

    port: int
    version: str
    url: str
    """`CLM_DATABASE_URL` of the role of the documentation."""

    def run_documented_grants(self) -> None:
        """Run the SQL block of the documentation as the administrator."""
        for statement in documented_grants().split(";\n"):
            if statement.strip():
                with self._connected() as connection:
                    connection.execute(statement.encode())

    def _connected(self) -> "psycopg.Connection":
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=ADMIN_PASSWORD,
            dbname="postgres",
            autocommit=True,
        )


def documented_grants() -> str:
    """The SQL block for a role without CREATEDB.

    Raises:
        DrillFailed: the page has no such block.
    """
    block = re.search(r"```sql\n(CREATE ROLE.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if block is None:
        raise DrillFailed(f"{PAGE} has no SQL block that begins with CREATE ROLE")
    return block[1]


@contextmanager
def database_server(folder: Path) -> Iterator[TcpServer]:
    """A server on 127.0.0.1 that asks for passwords (scram-sha-256), while the block lasts."""
    account = server_account()
    owner = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    folder.mkdir(mode=0o700)
    secret = folder / "password"
    secret.write_text(ADMIN_PASSWORD)
    if account is not None:
        for path in (folder, secret):
            os.chown(path, account.uid, account.gid)
    data = folder / "data"
    port = free_port()

    def run(*command: str) -> None:
        done = subprocess.run(
            command, cwd="/", capture_output=True, text=True, check=False, timeout=120, **owner
        )
        if done.returncode:
            raise DrillFailed(f"{Path(command[0]).name}: {done.stdout[-800:]}{done.stderr[-800:]}")

    words = ("--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8")
    run(str(program("initdb")), "-D", str(data), *words, "--no-locale")
    options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    control = (str(program("pg_ctl")), "-D", str(data), "-w", "-t", "60")
    # the output of the server goes to the log: a pipe would stay open
    subprocess.run(
        [*control, "start", "-l", str(folder / "log"), "-o", options],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=120,
        **owner,
    )
    try:
        admin = f"postgresql://postgres:{ADMIN_PASSWORD}@127.0.0.1:{port}/postgres"
        with psycopg.connect(admin) as connection:
            number = connection.info.parameter_status("server_version") or ""
        yield TcpServer(port, number, f"postgresql://clm:change-me@127.0.0.1:{port}/clm_ledger")
    finally:
        run(*control, "stop", "-m", "fast")
        shutil.rmtree(data, ignore_errors=True)
