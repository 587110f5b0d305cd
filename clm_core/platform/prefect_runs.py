"""The one place that starts Prefect, a private server for the time of a command, and its runs.

Run as a module it is that server: `python -m clm_core.platform.prefect_runs PORT` serves until its
standard input closes, so that it ends with the process that started it, however that one dies.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from clm_core.domain.errors import ServerUnavailable
from clm_core.platform.stack_state import prefect_auth, running

if TYPE_CHECKING:
    import httpx

    from clm_core.platform.database import Database

DEPLOYMENTS_TAG = "clm"
"""Deployments with this tag are ours to change and to pause."""
READY_WITHIN_SECONDS = 180.0
PAGE = 200
"""Most that Prefect lists at once."""
EVENTS = 50
"""Most events that it does."""


@contextlib.contextmanager
def prefect_server(database: "Database", home: Path) -> Iterator[Callable[[], None]]:
    """A Prefect server on 127.0.0.1 with its data in our database, known to this process as its API.

    A server named by PREFECT_API_URL, or else that of `clm up`, is used instead, and left running.

    Yields:
        A function that waits until the server answers; it raises ServerUnavailable, naming the server's
        log, when it ended or did not answer in time. Work done before calling it is done while
        the server starts.
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
            [sys.executable, "-m", "clm_core.platform.prefect_runs", str(port)],
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
    """Where Prefect keeps its files, and how loud it is here; read at its import, so call this before.

    Everything a run logs is on its page; the terminal shows our progress and our errors.
    """
    os.environ |= {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }


def load_flow(entrypoint: str) -> Callable[..., Any]:
    """A flow, named by module and function ("flows.retrain.retrain"); called, it runs in this process."""
    from prefect.flows import load_flow_from_entrypoint

    return load_flow_from_entrypoint(entrypoint)


def is_answering(url: str) -> bool:
    """Whether a server says so at its address for health checks."""
    import httpx

    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def workers_online(environment: Mapping[str, str], work_pool: str) -> list[str]:
    """Names of the workers that gave a sign of life lately; none when the server does not answer."""
    try:
        answer = ask(environment, "POST", f"/work_pools/{work_pool}/workers/filter", {})
    except ServerUnavailable:
        return []
    return [worker["name"] for worker in answer if worker["status"] == "ONLINE"]


def ask(environment: Mapping[str, str], method: str, path: str, body: Any = None) -> Any:
    """What the Prefect server named in an environment answers; importing its client takes a second.

    Raises:
        ServerUnavailable: it does not answer, or with an error.
    """
    import httpx

    user, _, password = environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
    url = f"{environment['PREFECT_API_URL']}{path}"
    try:
        answer = httpx.request(method, url, json=body, auth=(user, password), timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        raise ServerUnavailable(
            f"Prefect did not do what it was asked ({error}): see `clm status`."
        ) from error
    return answer.json()


class RunState(StrEnum):
    """How a run is that was to start a job."""

    UNDER_WAY = "under_way"
    """Scheduled, queued or running."""
    ENDED = "ended"
    MISSING = "missing"
    """Prefect knows of no such run."""


@dataclass(frozen=True)
class Run:
    state: RunState
    told: str
    """Prefect's name of the state, with its message: `Crashed: Process exited with -9`."""


@dataclass(frozen=True)
class BusEvent:
    """Of Prefect's own events."""

    id: str
    name: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Runs:
    """Runs of flows that workers do, through Prefect's API; asks once, where Prefect's own client would ask
    again for minutes while nobody answers."""

    client: "httpx.Client"

    def deployments(self, flow: str) -> dict[str, UUID]:
        """Ids of a flow's deployments, by name."""
        found = dict[str, UUID]()
        wanted = {"flows": {"name": {"any_": [flow]}}, "limit": PAGE}
        while page := self._post("/deployments/filter", wanted | {"offset": len(found)}):
            found |= {deployment["name"]: UUID(deployment["id"]) for deployment in page}
        return found

    def create(self, deployment: UUID, parameters: Mapping[str, Any], key: str, tags: Sequence[str]) -> UUID:
        """Have a worker run it; once for a key, however often it is asked."""
        wanted = {"parameters": parameters, "idempotency_key": key, "tags": list(tags)}
        return UUID(self._post(f"/deployments/{deployment}/create_flow_run", wanted)["id"])

    def read(self, run_ids: Collection[UUID]) -> dict[UUID, Run]:
        """How they are."""
        runs, ids = dict.fromkeys(run_ids, Run(RunState.MISSING, "its run was deleted")), sorted(run_ids)
        for start in range(0, len(ids), PAGE):
            some = [str(run_id) for run_id in ids[start : start + PAGE]]
            for found in self._post("/flow_runs/filter", {"flow_runs": {"id": {"any_": some}}}):
                runs[UUID(found["id"])] = _run(found["state"])
        return runs

    def crash(self, run_id: UUID, told: str) -> None:
        """Show a run as crashed that would be shown as running for ever."""
        crashed = {"type": "CRASHED", "name": "Crashed", "message": told}
        self._post(f"/flow_runs/{run_id}/set_state", {"state": crashed, "force": True})

    def failed_actions(self, since: datetime) -> dict[str, str]:
        """Why automations could not do what they are for, the newest reason of each, by its name."""
        wanted = {
            "event": {"name": ["prefect.automation.action.failed"]},
            "occurred": {"since": since.isoformat()},
        }
        newest_first = self._post("/events/filter", {"filter": wanted, "limit": EVENTS})["events"]
        return {_automation(event): str(event["payload"]["reason"]) for event in reversed(newest_first)}

    def failed_runs(self, since: datetime) -> dict[UUID, tuple[str, str]]:
        """Runs of our deployments that ended badly: the deployment of each, and why, newest first."""
        wanted = {
            "flow_runs": {
                "state": {"type": {"any_": ["FAILED", "CRASHED"]}},
                "end_time": {"after_": since.isoformat()},
            },
            "deployments": {"tags": {"all_": [DEPLOYMENTS_TAG]}},
        }
        runs = self._post("/flow_runs/filter", wanted | {"sort": "END_TIME_DESC", "limit": PAGE})
        ids = sorted({run["deployment_id"] for run in runs})
        found = self._post("/deployments/filter", {"deployments": {"id": {"any_": ids}}})
        names = {deployment["id"]: deployment["name"] for deployment in found}
        return {UUID(run["id"]): (names[run["deployment_id"]], _run(run["state"]).told) for run in runs}

    def events(self, names: Sequence[str], since: datetime) -> list[BusEvent]:
        """Everything of these names, oldest first."""
        wanted = {"event": {"name": list(names)}, "occurred": {"since": since.isoformat()}, "order": "ASC"}
        page = self._post("/events/filter", {"filter": wanted, "limit": EVENTS})
        found = list(page["events"])
        while next_page := page["next_page"]:
            # the server need not be known to us by the name it gives itself
            query = urlsplit(next_page).query
            page = self.client.get(f"/events/filter/next?{query}").raise_for_status().json()
            found += page["events"]
        return [BusEvent(event["id"], event["event"], event["payload"]) for event in found]

    def _post(self, path: str, wanted: Mapping[str, Any]) -> Any:
        return self.client.post(path, json=wanted).raise_for_status().json()


@contextlib.contextmanager
def prefect_runs(home: Path) -> Iterator[Runs]:
    """Of the server that this process knows as its API, or else that of `clm up`.

    Raises:
        ServerUnavailable: there is none, it does not answer, or refuses; ask again later.
    """
    import httpx

    url, auth = _known_api(home)
    user, _, password = auth.partition(":")
    try:
        with httpx.Client(base_url=url, auth=(user, password) if user else None, timeout=10) as client:
            yield Runs(client)
    except httpx.HTTPError as error:
        raise ServerUnavailable(f"Prefect did not do what it was asked: {error}") from error


def knows_prefect(home: Path) -> bool:
    """Whether there is a Prefect server to ask: one this process knows as its API, or that of `clm up`."""
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value()) or running(home) is not None


def _known_api(home: Path) -> tuple[str, str]:
    """Address, and name and password."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    if url := PREFECT_API_URL.value():
        return url, PREFECT_API_AUTH_STRING.value() or ""
    if stack := running(home):
        return stack.prefect_api_url, prefect_auth(home)
    raise ServerUnavailable("no Prefect server is known: start `clm up`, or set PREFECT_API_URL")


def _automation(event: Mapping[str, Any]) -> str:
    return str(event["resource"]["prefect.resource.name"])


def _run(state: Mapping[str, Any]) -> Run:
    ended = state["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    told = ": ".join(part for part in (state["name"], state["message"]) if part)
    return Run(RunState.ENDED if ended else RunState.UNDER_WAY, told)


def server_environment(database: "Database", folder: Path, url: str) -> dict[str, str]:
    """What a Prefect server of ours is told: `url` is that of its API."""
    return {
        "PREFECT_UI_API_URL": url,
        "PREFECT_API_DATABASE_CONNECTION_URL": database.url("prefect", driver="asyncpg"),
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "true",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        # in memory, as by default, a restart would forget who holds a deployment's slot: nobody gives it back
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }


@contextlib.contextmanager
def _client_settings(url: str, auth: str | None) -> Iterator[None]:
    """What flows in this process need to know; the heartbeat thread would cost a second a flow."""
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
            _deliver_what_is_queued()


def _deliver_what_is_queued() -> None:
    """Prefect sends logs and events (task states are events) from threads; the server must outlive them."""
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
    _serve(int(sys.argv[1]))
