"""Prefect in this process: a server for the time of a command, and the flows run against it.

Run as a module, `python -m clm_core.platform.prefect_server PORT` is the server and serves until standard
input closes, so the server ends with the process that started it. With a folder as a second argument, it is
the shared server of the commands of a home (`shared_prefect`).
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from clm_core.platform.database import Database
from clm_core.platform.file_locks import lock_file
from clm_core.platform.garbage_collection import collect_garbage_rarely
from clm_core.platform.private_files import keep_files_private
from clm_core.platform.shared_prefect import announce_address, end_when_unused, shared_server
from clm_core.platform.stack_state import prefect_auth, running

if TYPE_CHECKING:
    from uvicorn import Server

PAUSE_SECONDS = 0.1


UNUSED_SERVICES = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
)
"""Services of Prefect for workers, which the server of a command never has."""


@contextlib.contextmanager
def prefect_server(database: Database, home: Path) -> Iterator[Callable[[], None]]:
    """A Prefect server on 127.0.0.1 with its data in our database, set as the API of this process.

    Commands of a home that run at the same moment share a server. A server named by PREFECT_API_URL, or the
    server of `clm up`, is used instead and left running.

    Yields:
        A function that waits until the server answers. Work before the call overlaps with the start of the
        server. The function raises ServerUnavailable, naming the server's log, when the server ended or did
        not answer in time.
    """
    with kept_server(database, home) as server, _client_settings(server.url, server.auth):
        yield server.wait_until_ready


class KeptServer(NamedTuple):
    """A Prefect server, running for the time of a block."""

    url: str
    """Address of the API."""
    auth: str | None
    """Name and password, `name:password`; None for a server without."""
    wait_until_ready: Callable[[], None]


@contextlib.contextmanager
def kept_server(database: Database, home: Path) -> Iterator[KeptServer]:
    """The server of `prefect_server`, without being set as the API of the process.

    A session with a flow now and then keeps the server running; each flow joins by `prefect_server`.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        yield KeptServer(url, os.environ.get("PREFECT_API_AUTH_STRING"), lambda: None)
        return
    if stack := running(home):
        yield KeptServer(stack.prefect_api_url, prefect_auth(home), lambda: None)
        return
    folder = home / "prefect"
    auth = prefect_auth(home)

    def environment(url: str) -> dict[str, str]:
        # other users of the machine reach the port as well
        return server_environment_of_command(database, folder, url) | {
            "PREFECT_SERVER_API_AUTH_STRING": auth,
            "PREFECT_API_AUTH_STRING": auth,
        }

    with shared_server(folder, environment) as (url, wait_until_ready):
        yield KeptServer(url, auth, wait_until_ready)


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
        # logs and artifacts of the runs that maintenance deletes
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,orphans",
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "true",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        # a server that keeps leases in memory, the default, forgets the holders of concurrency slots at a
        # restart, and the slots are never freed
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }


def server_environment_of_command(database: Database, folder: Path, url: str) -> dict[str, str]:
    """Environment variables of the server of commands: of half the cost of `clm up`'s at rest."""
    off = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in UNUSED_SERVICES}
    return server_environment(database, folder, url) | off


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
    # in a thread: under the running event loop of a notebook, Prefect would return without waiting
    flushing = threading.Thread(target=_drain)
    flushing.start()
    flushing.join()


def _drain() -> None:
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)


def _serve(port: int, folder: Path | None) -> None:
    """Serve until standard input closes, or, as the shared server of a folder, until no command uses the
    server."""
    if folder is not None:
        announce_address(folder, port)
        threading.Thread(target=end_when_unused, args=(folder,), daemon=True).start()

    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(), host="127.0.0.1", port=port, log_level="warning"))

    def stop_when_orphaned() -> None:
        # unbuffered: at the exit, Python waits for the lock of a buffered reader, and aborts
        while os.read(0, 1):
            pass
        server.should_exit = True

    if folder is None:
        threading.Thread(target=stop_when_orphaned, daemon=True).start()
    # the server of `clm up` and the server of the commands may start at the same moment, and both migrate
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
    _serve(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
