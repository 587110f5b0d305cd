"""State of the stack while `clm up` runs: addresses and health of the servers of a home.

Files under stack/ in the home folder:

    lock            locked while `clm up` runs; freed by the kernel
    state.json      addresses and state of the parts
    ports.json      ports chosen at the first start, kept for bookmarks
    prefect.auth    name and password of Prefect's pages and API; readable by the owner alone
    logs/           output of each part
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import PortTaken, StackRunning
from clm_core.platform.private_files import renew_exposed_secret, stored_secret

PREFECT_USER = "clm"
WORKER = "clm-up"
"""Name in Prefect of the `clm up` worker that trains."""
MAINTENANCE_WORKER = "clm-up-maintenance"
"""Name in Prefect of the `clm up` worker of the scheduled passes."""
MAINTENANCE_QUEUE = "maintenance"
"""Work queue of the scheduled passes, separate from the queue of the trainings."""
PORTS_TRIED = 100


class PartStatus(StrEnum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class PartState(BaseModel):
    """State of one server or worker, as seen by the supervisor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    status: PartStatus
    pid: int | None = None
    """Process id, leader of a process group; None while the part is down."""
    restarts: int = 0
    """Number of restarts after a death."""
    last_exit: str | None = None
    """Cause of the last end: `code 1`, `SIGKILL`."""
    log: Path


class StackState(BaseModel):
    """State of the whole stack."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    """Process id of the supervisor, the receiver of SIGTERM."""
    started_at: datetime
    ready: bool = False
    """True once all parts have answered; stays True during a restart of a part."""
    prefect_url: str
    """Address of Prefect's pages; the API is below `/api`."""
    mlflow_url: str
    api_url: str | None = None
    """Address of the REST API, None for an installation without the API."""
    parts: tuple[PartState, ...] = ()
    settings_problem: str | None = None
    """Reason why a flow run that starts now could not load settings or policy, if any."""

    @property
    def prefect_api_url(self) -> str:
        return f"{self.prefect_url}/api"

    @property
    def healthy(self) -> bool:
        return self.ready and all(part.status is PartStatus.READY for part in self.parts)


def folder(home: Path) -> Path:
    return home / "stack"


def running(home: Path) -> StackState | None:
    """State of the stack of this home, or None when no stack runs, also after a killed stack."""
    if not _locked(home):
        return None
    try:
        return StackState.model_validate_json((folder(home) / "state.json").read_bytes())
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class PageAddresses:
    """Addresses of the pages of a home, for links that are kept; None for an unknown server."""

    home_page: str | None
    mlflow: str | None

    def tear_sheet(self, model_id: str, version: str) -> str | None:
        return self.home_page and f"{self.home_page}/models/{model_id}/versions/{version}/report"

    def search(self, model_id: str, name: str) -> str | None:
        """Report of a tuning or an evolution."""
        return self.home_page and f"{self.home_page}/models/{model_id}/searches/{name}"


def page_addresses(home: Path, public_url: str | None = None) -> PageAddresses:
    """Addresses of the running stack, or else of the last one: the ports of a home stay the same.

    Args:
        public_url: `api.public_url` of the settings.
    """
    home_page = None if public_url is None else public_url.rstrip("/")
    state = running(home)
    if state is not None:
        return PageAddresses(home_page=home_page or state.api_url, mlflow=state.mlflow_url)
    file = folder(home) / "ports.json"
    ports: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    local = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    return PageAddresses(home_page=home_page or local.get("api"), mlflow=local.get("mlflow"))


def refuse_if_running(home: Path) -> None:
    """Refuse to go on while the stack of this home runs.

    Raises:
        StackRunning: `clm up` runs for this home.
    """
    if _locked(home):
        raise _already_running(home)


def write_state(home: Path, state: StackState) -> None:
    new_file = folder(home) / "state.new"
    new_file.write_text(state.model_dump_json(indent=2))
    # replaced in one step, so that a concurrent reader finds a complete file
    new_file.replace(folder(home) / "state.json")


@contextlib.contextmanager
def stack_lock(home: Path) -> Iterator[None]:
    """Hold the lock of the stack of this home while the block lasts.

    Raises:
        StackRunning: another process holds the lock.
    """
    folder(home).mkdir(parents=True, exist_ok=True)
    with (folder(home) / "lock").open("ab") as lock:
        if not _lock(lock):
            raise _already_running(home)
        (folder(home) / "state.json").unlink(missing_ok=True)
        yield


def prefect_environment(home: Path, state: StackState) -> dict[str, str]:
    """Environment variables for a client of the Prefect server of `clm up`."""
    return {
        "PREFECT_API_URL": state.prefect_api_url,
        "PREFECT_API_AUTH_STRING": prefect_auth(home),
    }


def prefect_auth(home: Path) -> str:
    """`name:password` of the home's Prefect server, generated at the first call.

    Raises:
        SecretExposed: another user could have read or written the file.
    """
    return stored_secret(_auth_file(home), _new_auth)


def renew_exposed_auth(home: Path) -> str | None:
    """Replace a password of Prefect that another user could have read; the reason in a sentence, or None.

    Belongs before the start of the server.
    """
    return renew_exposed_secret(_auth_file(home), _new_auth)


def _auth_file(home: Path) -> Path:
    return folder(home) / "prefect.auth"


def _new_auth() -> str:
    return f"{PREFECT_USER}:{secrets.token_urlsafe(32)}"


@contextlib.contextmanager
def reserved_ports(
    home: Path, preferred: Mapping[str, int], fixed: Mapping[str, int]
) -> Iterator[dict[str, int]]:
    """A port for each name: fixed, used last time, preferred, or the next free port above.

    No other `clm up` on this machine chooses the same ports while the block lasts.

    Raises:
        PortTaken: a fixed port is in use.
    """
    file = folder(home) / "ports.json"
    previous: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    chosen = dict(fixed)
    with contextlib.ExitStack() as held:
        for name, port in fixed.items():
            if not _reserve(port, held):
                raise PortTaken(
                    f"Port {port}, set for {name}, is in use: set another port, or end the process using it."
                )
        for name, port in preferred.items():
            if name not in fixed:
                candidates = [
                    *([previous[name]] if name in previous else []),
                    *range(port, port + PORTS_TRIED),
                ]
                chosen[name] = _first_free(candidates, set(chosen.values()), held)
        file.write_text(json.dumps(chosen))
        yield chosen


def _already_running(home: Path) -> StackRunning:
    return StackRunning(
        f"`clm up` already runs for {home}: `clm status` shows the servers, `clm down` stops them."
    )


def _first_free(candidates: Iterable[int], taken: Container[int], held: contextlib.ExitStack) -> int:
    for port in candidates:
        if port not in taken and _reserve(port, held):
            return port
    raise PortTaken("A hundred ports in a row are in use: set the ports under [stack] in clm.toml.")


def _reserve(port: int, held: contextlib.ExitStack) -> bool:
    """True if no process uses or has reserved the port; seconds pass between the choice and the use of a
    port."""
    with contextlib.ExitStack() as attempt:
        reserve = _reserve_by_name if sys.platform == "linux" else _reserve_by_file
        if not reserve(port, attempt) or not _is_free(port):
            return False
        held.enter_context(attempt.pop_all())
        return True


def _reserve_by_name(port: int, held: contextlib.ExitStack) -> bool:
    """Reserve a port by the name of a socket, for all users of the machine.

    The name is in no file system (unix(7), abstract sockets): the kernel frees the name with the process, and
    nothing is left behind that belongs to one user and blocks another.
    """
    reservation = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        reservation.bind(f"\0clm-port-{port}")
    except OSError:
        return False
    return True


def _reserve_by_file(port: int, held: contextlib.ExitStack) -> bool:
    """Reserve a port among the homes of this user, where sockets have no names outside the file system."""
    folder = Path(tempfile.gettempdir()) / f"clm-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PortTaken(f"{folder} belongs to another user: remove it, or set TMPDIR.")
    lock = held.enter_context((folder / f"{port}.lock").open("ab"))
    return _lock(lock, wait_s=0)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # as servers do, so that a port closed a moment ago counts as free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _locked(home: Path) -> bool:
    try:
        lock = (folder(home) / "lock").open("rb")
    except FileNotFoundError:
        return False
    with lock:
        return not _lock(lock, shared=True, wait_s=0)


def _lock(lock: IO[bytes], *, shared: bool = False, wait_s: float = 1.0) -> bool:
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            # a reader may hold the shared lock for a moment
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
