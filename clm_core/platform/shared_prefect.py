"""Prefect server shared by the commands of a home: the first command starts it, the last command stops it.

Files in the folder `prefect` of the home:

    server.gate     locked during a start or a stop
    server.users    locked, shared, by every command that uses the server
    server.alive    locked by the server, which inherits the lock
    server.json     address and process of the server; missing while the server stops
    server.log      output of the server

The kernel frees a lock when its last holder dies. A server whose commands were all killed notices within
seconds, and ends.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import ServerUnavailable
from clm_core.platform.file_locks import lock_file
from clm_core.platform.interpreter import MODULE
from clm_core.platform.prefect_runs import is_answering

READY_WITHIN_SECONDS = 900.0
"""Long, because the first start migrates the database: minutes on a busy machine."""
STOPPED_WITHIN_SECONDS = 60.0
PAUSE_SECONDS = 0.1
UNUSED_CHECK_SECONDS = 1.0


class ServerAddress(BaseModel):
    """Port and process id of a running server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int
    pid: int


@contextlib.contextmanager
def shared_server(
    folder: Path, environment: Callable[[str], Mapping[str, str]]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Use the server of a home while the block lasts.

    Args:
        environment: variables of the server for the address of its API.

    Yields:
        Address of the API, and a function that waits until the server answers. The function raises
        ServerUnavailable, naming the server's log, when the server ended or did not answer in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.users").open("ab") as users:
        with _gate(folder):
            lock_file(users, shared=True)
            running = _running(folder)
            port = _start(folder, environment) if running is None else running.port
        try:
            yield api_url(port), partial(_wait_until_ready, folder, port)
        finally:
            with _gate(folder):
                if lock_file(users, wait=False):
                    _stop(folder)


def api_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/api"


def announce_address(folder: Path, port: int) -> None:
    """Publish the address of this process, the server, to the commands that join."""
    new_file = folder / "server.new"
    new_file.write_text(ServerAddress(port=port, pid=os.getpid()).model_dump_json())
    # replaced in one step, so that a concurrent reader finds a complete file
    new_file.replace(folder / "server.json")


def end_when_unused(folder: Path) -> None:
    """Wait until no command uses the server any more, and end this process."""
    while True:
        time.sleep(UNUSED_CHECK_SECONDS)
        with (folder / "server.gate").open("ab") as gate, (folder / "server.users").open("ab") as users:
            # the gate is closed while a command starts to use the server
            if lock_file(gate, wait=False) and lock_file(users, wait=False):
                (folder / "server.json").unlink(missing_ok=True)
                os.kill(os.getpid(), signal.SIGTERM)
                return


@contextlib.contextmanager
def _gate(folder: Path) -> Iterator[None]:
    with (folder / "server.gate").open("ab") as gate:
        lock_file(gate)
        yield


def _running(folder: Path) -> ServerAddress | None:
    """Address of the living server; None when no server is left. The caller holds the gate."""
    deadline = time.monotonic() + STOPPED_WITHIN_SECONDS
    while not _has_ended(folder):
        # without an address, the server is about to publish the address, or stops
        if (address := _address(folder)) is not None:
            return address
        if time.monotonic() > deadline:
            raise ServerUnavailable(
                f"A Prefect server of this home does not stop: see {folder / 'server.log'}, or end the "
                f"process that holds {folder / 'server.alive'}."
            )
        time.sleep(PAUSE_SECONDS)
    return None


def _has_ended(folder: Path) -> bool:
    """True if no server holds the lock. The caller holds the gate."""
    with (folder / "server.alive").open("ab") as alive:
        return lock_file(alive, wait=False)


def _address(folder: Path) -> ServerAddress | None:
    try:
        return ServerAddress.model_validate_json((folder / "server.json").read_bytes())
    except FileNotFoundError:
        return None


def _start(folder: Path, environment: Callable[[str], Mapping[str, str]]) -> int:
    """Start a server; returns its port. The caller holds the gate."""
    (folder / "server.json").unlink(missing_ok=True)
    port = _free_port()
    with (folder / "server.alive").open("ab") as alive, (folder / "server.log").open("wb") as output:
        lock_file(alive)
        subprocess.Popen(
            [*MODULE, "clm_core.platform.prefect_server", str(port), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment(api_url(port)),
            pass_fds=(alive.fileno(),),
            # Ctrl-C stops the command, and other commands may use the server
            start_new_session=True,
        )
    return port


def _stop(folder: Path) -> None:
    """Stop the server, which no command uses any more. The caller holds the gate."""
    server = _running(folder)
    if server is None:
        return
    (folder / "server.json").unlink(missing_ok=True)
    os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOPPED_WITHIN_SECONDS
    while not _has_ended(folder):
        if time.monotonic() > deadline:
            os.kill(server.pid, signal.SIGKILL)
        time.sleep(PAUSE_SECONDS)


def _wait_until_ready(folder: Path, port: int) -> None:
    log = folder / "server.log"
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if is_answering(f"{api_url(port)}/health"):
            return
        with (folder / "server.gate").open("ab") as gate:
            if lock_file(gate, wait=False) and _has_ended(folder):
                raise ServerUnavailable(f"The Prefect server ended during the start: see {log}.")
        time.sleep(PAUSE_SECONDS)
    raise ServerUnavailable(
        f"The Prefect server did not answer in {READY_WITHIN_SECONDS:.0f} s: see {log}, and repeat the "
        "command. Nothing is lost, and the start continues after the migrations that are done."
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
