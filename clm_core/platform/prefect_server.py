"""Flows in this process: flow runs of the Prefect server in reach, or plain calls without a server.

Run as a module, `python -m clm_core.platform.prefect_server PORT` is a server, and serves until standard
input closes: the server ends with the process that started it.
"""

import contextlib
import importlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from clm_core.domain.errors import ServerUnavailable
from clm_core.platform.database import Database
from clm_core.platform.file_locks import lock_file
from clm_core.platform.garbage_collection import collect_garbage_rarely, return_memory_after_start
from clm_core.platform.interpreter import MODULE
from clm_core.platform.prefect_runs import is_answering
from clm_core.platform.private_files import keep_files_private
from clm_core.platform.stack_state import prefect_auth, running

if TYPE_CHECKING:
    from prefect import Flow
    from uvicorn import Server

PAUSE_SECONDS = 0.1
READY_WITHIN_SECONDS = 900.0
"""Long, because the first start migrates the database: minutes on a busy machine."""
UNUSED_SERVICES = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
)
"""Services of Prefect for workers, which a server of runs in the same process never has."""


class KnownServer(NamedTuple):
    """A running Prefect server."""

    url: str
    """Address of the API."""
    auth: str | None
    """Name and password, `name:password`; None for a server without."""


def known_server(home: Path) -> KnownServer | None:
    """Server that PREFECT_API_URL names, or the server of `clm up`; None without either."""
    if url := os.environ.get("PREFECT_API_URL"):
        return KnownServer(url, os.environ.get("PREFECT_API_AUTH_STRING"))
    stack = running(home)
    return None if stack is None else KnownServer(stack.prefect_api_url, prefect_auth(home))


@contextlib.contextmanager
def flow_calls(name: str, home: Path) -> Iterator[Callable[..., Any]]:
    """A function that does the work of a flow and returns its result.

    With a Prefect server up, each call is a flow run of the server. Without, no server is started and Prefect
    is not imported: the steps are plain calls, with the same records in the ledger.

    Args:
        name: name of the flow's module in `flows` and `flows.sequences`, and of the function in both.
    """
    server = known_server(home)
    if server is None:
        sequence = getattr(importlib.import_module(f"flows.sequences.{name}"), name)
        yield lambda *arguments: sequence(*arguments).data
        return
    flow = load_flow(f"flows.{name}.{name}")
    with _client_settings(server):
        yield flow


@contextlib.contextmanager
def own_server(database: Database, folder: Path) -> Iterator[str]:
    """A Prefect server without a password, and the API of this process, for the time of a block.

    For tests, benchmarks and pictures.

    Args:
        folder: folder of the server's files and log.

    Yields:
        Address of the API.

    Raises:
        ServerUnavailable: the server ended during the start, or did not answer in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    log = folder / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*MODULE, "clm_core.platform.prefect_server", str(port)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | _environment_without_workers(database, folder, url),
            # Ctrl-C ends the block first
            start_new_session=True,
        ) as process,
    ):
        _wait_until_ready(process, url, log)
        with _client_settings(KnownServer(url, None)):
            yield url


def prepare_environment(home: Path) -> None:
    """Set Prefect's folder and the log level of the terminal; call before the first import of Prefect.

    Everything a run logs is on the run's page; the terminal shows progress and errors.
    """
    os.environ |= {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }


def load_flow(entrypoint: str) -> "Flow[..., Any]":
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
        # logs and artifacts of the runs that maintenance deletes
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,orphans",
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "true",
        # a connection takes 8 MB at rest; a retrain opens two beyond these for a moment
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "3",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        # a server that keeps leases in memory, the default, forgets the holders of concurrency slots at a
        # restart, and the slots are never freed
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # queries every five seconds by default, which find nothing day and night
        "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_LOOP_SECONDS": "30",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "30",
        "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "60",
        "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT15S",
        # looks at every deployment; a changed one has runs within seconds, any other for an hour ahead
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "600",
    }


def _environment_without_workers(database: Database, folder: Path, url: str) -> dict[str, str]:
    """Environment variables of a server without workers: of half the cost of `clm up`'s at rest."""
    off = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in UNUSED_SERVICES}
    return server_environment(database, folder, url) | off


@contextlib.contextmanager
def _client_settings(server: KnownServer) -> Iterator[None]:
    """Prefect settings for flows in this process, without the heartbeat thread (a second a flow)."""
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    known = {
        PREFECT_API_URL: server.url,
        PREFECT_API_AUTH_STRING: server.auth,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(known):
        try:
            yield
        finally:
            _flush_queues()


def _flush_queues() -> None:
    """Send queued logs and events before the server ends; Prefect sends both from threads."""
    # in a thread: under the running event loop of a notebook, Prefect would return without waiting
    flushing = threading.Thread(target=_drain)
    flushing.start()
    flushing.join()


def _drain() -> None:
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while not is_answering(f"{url}/health"):
        if process.poll() is not None:
            raise ServerUnavailable(f"The Prefect server ended during the start: see {log}.")
        if time.monotonic() > deadline:
            process.kill()
            raise ServerUnavailable(
                f"The Prefect server did not answer in {READY_WITHIN_SECONDS:.0f} s: see {log}."
            )
        time.sleep(PAUSE_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _serve(port: int) -> None:
    """Serve until standard input closes."""
    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(), host="127.0.0.1", port=port, log_level="warning"))

    def stop_when_orphaned() -> None:
        # unbuffered: at the exit, Python waits for the lock of a buffered reader, and aborts
        while os.read(0, 1):
            pass
        server.should_exit = True

    threading.Thread(target=stop_when_orphaned, daemon=True).start()
    # the server of `clm up` may start at the same moment, and both migrate
    with Path(os.environ["PREFECT_HOME"], "server.migration").open("ab") as migration:
        lock_file(migration)
        threading.Thread(target=_unlock_when_started, args=(server, migration), daemon=True).start()
        server.run()


def _unlock_when_started(server: "Server", migration: IO[bytes]) -> None:
    """Free the lock of the migrations, which are done once the server accepts requests."""
    while not server.started:
        time.sleep(PAUSE_SECONDS)
    migration.close()


if __name__ == "__main__":
    collect_garbage_rarely()
    keep_files_private()
    return_memory_after_start()
    _serve(int(sys.argv[1]))
