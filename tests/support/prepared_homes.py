"""Homes with migrated databases: a template is made once for all test processes and copied.

Migrating the databases of MLflow and Prefect costs 10 to 20 seconds of processor time. A home that starts
from the copy has the same tables; tests of the first start of a home make a new home.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from clm_core.platform.database import Database, open_database

# tests kill processes, never the machine: the operating system keeps what a killed server wrote
UNSYNCED = "fsync = off\nfull_page_writes = off\n"

MIGRATE_PREFECT = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""
MIGRATE_MLFLOW = """
import sys
from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine_with_retry
engine = create_sqlalchemy_engine_with_retry(sys.argv[1])
_initialize_tables(engine)
engine.dispose()
"""
MIGRATE_LEDGER = """
import sys
from clm_core.ledger.migrations import upgrade
upgrade(sys.argv[1])
"""


def prepare(home: Path, shared: Path) -> Path:
    """Put a migrated database into a home without a database.

    Args:
        shared: folder of the template, used by all processes of a test session.
    """
    home.mkdir(parents=True, exist_ok=True)
    template = _template(shared)
    if not (home / "postgres").exists():
        # cp keeps the owner, since a server started by root runs as another user
        subprocess.run(["cp", "-a", str(template / "postgres"), str(home / "postgres.copy")], check=True)
        (home / "postgres.copy").rename(home / "postgres")
    return home


def _template(shared: Path) -> Path:
    template = shared / "template-home"
    shared.mkdir(parents=True, exist_ok=True)
    shared.chmod(0o755)
    with (shared / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (template / "ready").exists():
            shutil.rmtree(template, ignore_errors=True)
            template.mkdir()
            with open_database(template) as database:
                _migrate(database)
            with (template / "postgres" / "postgresql.auto.conf").open("a") as configuration:
                configuration.write(UNSYNCED)
            (template / "ready").touch()
    return template


def _migrate(database: Database) -> None:
    """Migrate the three databases at the same time, since most of the time is spent on imports."""
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    prefect = environment | {
        "PREFECT_API_DATABASE_CONNECTION_URL": database.url("prefect", driver="asyncpg"),
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", script, *arguments], env=env)
        for script, arguments, env in (
            (MIGRATE_LEDGER, [database.url("ledger")], environment),
            (MIGRATE_MLFLOW, [database.url("mlflow")], environment),
            (MIGRATE_PREFECT, [], prefect),
        )
    ]
    codes = [process.wait() for process in processes]
    assert codes == [0, 0, 0], codes
