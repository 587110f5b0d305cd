"""Time that the lock of MLflow's server adds to a request, against MLflow alone over the same database.

Both servers run at the same time, and receive blocks of requests in turn: other load on the machine falls on
both.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median

import httpx
from sqlalchemy import Engine

from benchmarks.table import CLOCK, Row, timed, within
from clm_core.domain.actors import SYSTEM
from clm_core.domain.tokens import Secret, new_token
from clm_core.domain.vocabulary import Role
from clm_core.ledger.store import Ledger
from clm_core.platform.database import Database, open_database
from clm_core.services import open_ledger

ADDED_WITHIN_S = 0.005
BLOCKS = 15
REQUESTS_PER_BLOCK = 30
READY_WITHIN_S = 300.0
GUARDED = ("-m", "clm_core.registry.server", "{port}")
ALONE = ("-m", "uvicorn", "--log-level=warning", "--port={port}", "mlflow.server.fastapi_app:app")
API = "/api/2.0/mlflow"
REQUESTS = {
    "a list of experiments": partial(httpx.Request, "GET", params={"max_results": "100"}),
    "a search for runs": partial(httpx.Request, "POST", json={"experiment_ids": ["0"]}),
    "the page of the browser": partial(httpx.Request, "GET"),
}
PATHS = {
    "a list of experiments": f"{API}/experiments/search",
    "a search for runs": f"{API}/runs/search",
    "the page of the browser": "/",
}


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        with open_database(home) as database, open_ledger(database) as engine:
            token = _token(engine)
            with _server(home, database, GUARDED) as guarded, _server(home, database, ALONE) as alone:
                added = {name: _added_s(name, guarded, alone, token) for name in REQUESTS}
    slowest = max(added, key=lambda name: added[name])
    name = f"time added to a request to MLflow by the lock, slowest of {len(added)}: {slowest}"
    return [within(name, max(added[slowest], 1e-6), ADDED_WITHIN_S)]


def _added_s(name: str, guarded: str, alone: str, token: str) -> float:
    """Median over the blocks of the difference between the medians of a block of each server."""
    authorization = {"Authorization": f"Bearer {token}"}
    build = REQUESTS[name]
    with httpx.Client(timeout=60) as client:
        through_lock = build(guarded + PATHS[name], headers=authorization)
        straight = build(alone + PATHS[name])
        blocks = [(_block_s(client, through_lock), _block_s(client, straight)) for _ in range(BLOCKS)]
    return median(ours - theirs for ours, theirs in blocks)


def _block_s(client: httpx.Client, request: httpx.Request) -> float:
    return timed(lambda: client.send(request).raise_for_status(), REQUESTS_PER_BLOCK).median(CLOCK)


def _token(engine: Engine) -> str:
    secret = Secret.generate(secrets.token_bytes)
    token = new_token(secret, "bench", Role.VIEWER, SYSTEM, datetime.now(UTC), timedelta(days=1))
    Ledger(engine).tokens.issue(token, secret, SYSTEM)
    return secret.text


@contextlib.contextmanager
def _server(home: Path, database: Database, command: tuple[str, ...]) -> Iterator[str]:
    """Address of a running server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = database.url("mlflow")
    environment = os.environ | {
        "CLM_HOME": str(home),
        "MLFLOW_BACKEND_STORE_URI": uri,
        "_MLFLOW_SERVER_FILE_STORE": uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(home / "mlflow" / "artifacts"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    arguments = [part.format(port=port) for part in command]
    process = subprocess.Popen([sys.executable, *arguments], env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process)
        yield url
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=2).is_success:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not answer within {READY_WITHIN_S:.0f} s")
