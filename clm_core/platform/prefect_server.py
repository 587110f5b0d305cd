"""Prefect in this process: a private server for the time of a command, and the flows run against it.

Run as a module, `python -m clm_core.platform.prefect_server PORT` is the server and serves until standard
input closes, so the server ends with the process that started it.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clm_core.domain.errors import ServerUnavailable
from clm_core.platform.database import Database
from clm_core.platform.prefect_runs import is_answering
from clm_core.platform.private_files import keep_files_private
from clm_core.platform.stack_state import prefect_auth, running

READY_WITHIN_SECONDS = 180.0


@contextlib.contextmanager
def prefect_server(database: Database, home: Path) -> Iterator[Callable[[], None]]:
    """A Prefect server on 127.0.0.1 with its data in our database, set as the API of this process.

    A server named by PREFECT_API_URL, or the server of `clm up`, is used instead and left running.

    Yields:
        A function that waits until the server answers. Work before the call overlaps with the start of the
        server. The function raises ServerUnavailable, naming the server's log, when the server ended or did
        not answer in time.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        with _client_settings(url, os.environ.get("PREFECT_API_AUTH_STRING")):
            yield lambda: None
        return
    if stack := running(home):
        with _client_settings(stack.prefect_api_url, prefect_auth(home)):
            yield lambda: None
        return
    folder = home / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", "clm_core.platform.prefect_server", str(port)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | server_environment(database, folder, url),
            start_new_session=True,
        ) as server,
    ):
        try:
            with _client_settings(url, None):
                yield lambda: _wait_until_ready(server, url, log)
        finally:
            server.terminate()


def prepare_environment(home: Path) -> None:
    """Set Prefect's folder and the log level of the terminal; call before the first import of Prefect.

    Everything a run logs is on the run's page; the terminal shows progress and errors.
    """
    os.environ |= {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }


def load_flow(entrypoint: str) -> Callable[..., Any]:
    """Flow named by module and function ("flows.retrain.retrain"); a call runs the flow in this process."""
    from prefect.flows import load_flow_from_entrypoint

    return load_flow_from_entrypoint(entrypoint)


def server_environment(database: Database, folder: Path, url: str) -> dict[str, str]:
    """Environment variables of a Prefect server of ours; `url` is the address of its API."""
    return {
        "PREFECT_UI_API_URL": url,
        "PREFECT_API_DATABASE_CONNECTION_URL": database.url("prefect", driver="asyncpg"),
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "true",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        # a server that keeps leases in memory, the default, forgets the holders of concurrency slots at a
        # restart, and the slots are never freed
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }


@contextlib.contextmanager
def _client_settings(url: str, auth: str | None) -> Iterator[None]:
    """Prefect settings for flows in this process, without the heartbeat thread (a second a flow)."""
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    known = {
        PREFECT_API_URL: url,
        PREFECT_API_AUTH_STRING: auth,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(known):
        try:
            yield
        finally:
            _flush_queues()


def _flush_queues() -> None:
    """Send queued logs and events before the server ends; Prefect sends both from threads."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServerUnavailable(f"The Prefect server ended with code {server.returncode}; see {log}.")
        if is_answering(f"{url}/health"):
            return
        time.sleep(0.1)
    raise ServerUnavailable(f"The Prefect server did not answer in {READY_WITHIN_SECONDS:.0f} s; see {log}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _serve(port: int) -> None:
    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(), host="127.0.0.1", port=port, log_level="warning"))

    def stop_when_orphaned() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=stop_when_orphaned, daemon=True).start()
    server.run()


if __name__ == "__main__":
    keep_files_private()
    _serve(int(sys.argv[1]))
