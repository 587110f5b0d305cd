"""MLflow's tables, created by several processes at the same moment."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from patience import PATIENT_SECONDS
from psycopg.sql import SQL

from clm_core.services import Services

CONNECT = """
import sys
from pathlib import Path
import mlflow
from clm_core.registry.mlflow_registry import MLflowRegistry
registry = MLflowRegistry(sys.argv[1], Path(sys.argv[2]))
print("imported", flush=True)
sys.stdin.readline()
registry.connect()
"""


def test_processes_that_use_an_empty_store_at_the_same_moment_create_its_tables_once(
    services: Services, tmp_path: Path
) -> None:
    with psycopg.connect(services.database.server, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE mlflow_at_once"))
    url = urlsplit(services.database.url("mlflow"))._replace(path="/mlflow_at_once").geturl()
    script = [sys.executable, "-c", CONNECT, url, str(tmp_path / "mlflow" / "artifacts")]
    processes = [
        subprocess.Popen(
            script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "imported\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    endings = [process.communicate(timeout=PATIENT_SECONDS)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], endings
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM experiments WHERE name = 'clm'").fetchone() == (1,)
