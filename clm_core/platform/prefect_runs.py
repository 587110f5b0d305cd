"""Client of Prefect's API: runs, workers and events."""

import contextlib
import logging
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from clm_core.domain.errors import ServerUnavailable
from clm_core.platform.stack_state import prefect_auth, running
from clm_core.platform.trusted_certificates import trusted_certificates

if TYPE_CHECKING:
    import httpx


DEPLOYMENTS_TAG = "clm"
"""Deployments with this tag are ours to change and to pause."""
RETRAIN_TAG = "retrain"
SEARCH_TAG = "search"
"""Tag of the runs of tuning and evolution."""
HOUSEKEEPING_TAG = "housekeeping"
"""Tag of the runs of scheduled passes, more than 1,440 a day."""
MAX_DELETED = 50
"""Maximum number of runs that Prefect deletes in one request."""
MAX_PAGE = 200
"""Maximum number of runs or deployments in one answer of Prefect."""
RUN_RESOURCE = "prefect.flow-run."
"""Beginning of the resource id of a run in events."""
POD_EVENTS = "prefect.kubernetes.pod."
"""Beginning of the names of events about the pod of a run."""
DIAGNOSIS = "kubernetes.diagnosis"
"""Label of such an event: category of the pod's failure, `OOMKilled`, `ImagePullError`, `Evicted`."""
ENDED = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
"""Prefect's types of the state of a run that has ended."""
MAX_EVENTS_PAGE = 50
"""Maximum number of events in one answer of Prefect."""


def is_answering(url: str) -> bool:
    """True if the health address answers with status 200."""
    import httpx

    try:
        return httpx.get(url, timeout=2, verify=trusted_certificates()).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def workers_online(environment: Mapping[str, str], work_pool: str) -> list[str]:
    """Names of the workers online; empty when the server does not answer."""
    try:
        answer = ask(environment, "POST", f"/work_pools/{work_pool}/workers/filter", {})
    except ServerUnavailable:
        return []
    return [worker["name"] for worker in answer if worker["status"] == "ONLINE"]


def work_pool_template(environment: Mapping[str, str], work_pool: str) -> dict[str, Any] | None:
    """Base job template of a work pool; None without the pool, and when the server does not answer."""
    try:
        pool = ask(environment, "GET", f"/work_pools/{work_pool}")
    except ServerUnavailable:
        return None
    template: dict[str, Any] = pool["base_job_template"]
    return template


def ask(environment: Mapping[str, str], method: str, path: str, body: Any = None) -> Any:
    """Answer of the Prefect server named in an environment, without the slow import of Prefect's client.

    Raises:
        ServerUnavailable: the server does not answer, or answers with an error.
    """
    import httpx

    user, _, password = environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
    url = f"{environment['PREFECT_API_URL']}{path}"
    try:
        answer = httpx.request(
            method,
            url,
            json=body,
            auth=(user, password),
            timeout=10,
            verify=trusted_certificates(),
        ).raise_for_status()
    except httpx.HTTPError as error:
        raise ServerUnavailable(
            f"Prefect did not carry out the request ({error}): see `clm status`."
        ) from error
    return answer.json()


def ask_for_all(
    environment: Mapping[str, str], path: str, filters: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """All records of a list of Prefect, which answers page by page.

    Raises:
        ServerUnavailable: as `ask`.
    """
    for offset in count(0, MAX_PAGE):
        page = ask(environment, "POST", path, {**filters, "limit": MAX_PAGE, "offset": offset})
        yield from page
        if len(page) < MAX_PAGE:
            return


class RunState(StrEnum):
    """State of the run that a job waits for."""

    UNDER_WAY = "under_way"
    """Scheduled, queued or running."""
    ENDED = "ended"
    MISSING = "missing"
    """Prefect knows of no such run."""


@dataclass(frozen=True)
class Run:
    state: RunState
    description: str
    """Prefect's name of the state with its message: `Crashed: Process exited with -9`."""
    cancelled: bool = False


@dataclass(frozen=True)
class CreatedRun:
    """A run created for a worker, or the earlier run of the same key."""

    id: UUID
    name: str
    """Prefect's name of the run."""
    parameters: dict[str, Any]


@dataclass(frozen=True)
class FormRun:
    """A run that asks a person."""

    id: UUID
    parameters: dict[str, Any]
    state: str
    """Prefect's type of the state: `PAUSED`."""
    created: datetime

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def rests(self) -> bool:
        """True for a run without a process: not started yet, or suspended."""
        return self.state in {"SCHEDULED", "PAUSED"}


@dataclass(frozen=True)
class PrefectEvent:
    """An event in Prefect's event log."""

    id: str
    name: str
    payload: dict[str, Any]
    resource: str
    """Resource the event is about, `my-monitor`."""


@dataclass(frozen=True)
class Runs:
    """Runs of flows on workers, through Prefect's API.

    Each request is sent once, while Prefect's own client would retry for minutes.
    """

    client: "httpx.Client"

    def deployments(self, flow: str) -> dict[str, UUID]:
        """Ids of a flow's deployments, by name."""
        ids = dict[str, UUID]()
        request = {"flows": {"name": {"any_": [flow]}}, "limit": MAX_PAGE}
        while page := self._post("/deployments/filter", request | {"offset": len(ids)}):
            ids |= {deployment["name"]: UUID(deployment["id"]) for deployment in page}
        return ids

    def create(self, deployment: UUID, parameters: Mapping[str, Any], key: str, tags: Sequence[str]) -> UUID:
        """Create a run for a worker, once for each key."""
        return self.start(deployment, parameters, key, tags).id

    def start(
        self, deployment: UUID, parameters: Mapping[str, Any], key: str, tags: Sequence[str]
    ) -> CreatedRun:
        """Create a run for a worker; with a key used before, the run created then."""
        request = {"parameters": parameters, "idempotency_key": key, "tags": list(tags)}
        run = self._post(f"/deployments/{deployment}/create_flow_run", request)
        return CreatedRun(UUID(run["id"]), run["name"], run["parameters"])

    def read(self, run_ids: Collection[UUID]) -> dict[UUID, Run]:
        """State of each run."""
        runs = dict.fromkeys(run_ids, Run(RunState.MISSING, "the run was deleted"))
        ids = sorted(run_ids)
        for start in range(0, len(ids), MAX_PAGE):
            batch = [str(run_id) for run_id in ids[start : start + MAX_PAGE]]
            for run in self._post("/flow_runs/filter", {"flow_runs": {"id": {"any_": batch}}}):
                runs[UUID(run["id"])] = _run(run["state"])
        return runs

    def is_cancelled(self, run_id: UUID | str) -> bool:
        """True for a run that was cancelled, or is about to be."""
        runs = self._post("/flow_runs/filter", {"flow_runs": {"id": {"any_": [str(run_id)]}}})
        return any(run["state_type"] in {"CANCELLING", "CANCELLED"} for run in runs)

    def forms(self, deployment: UUID, tag: str | None = None) -> list[FormRun]:
        """Runs of a deployment that have not ended; with a tag, the runs with the tag, ended or not."""
        states = {"state": {"type": {"not_any_": sorted(ENDED)}}}
        flow_run_filter = states if tag is None else {"tags": {"all_": [tag]}}
        request = {"flow_runs": flow_run_filter, "deployments": {"id": {"any_": [str(deployment)]}}}
        runs = self._post(
            "/flow_runs/filter", request | {"sort": "EXPECTED_START_TIME_DESC", "limit": MAX_PAGE}
        )
        return [
            FormRun(
                UUID(run["id"]),
                run["parameters"],
                run["state_type"],
                datetime.fromisoformat(run["created"]),
            )
            for run in runs
        ]

    def pod_diagnoses(self, run_ids: Collection[UUID]) -> dict[UUID, str]:
        """Word for the failure of the pod of a run in Kubernetes, as `OOMKilled`; other runs are left out."""
        resources = {f"{RUN_RESOURCE}{run_id}": run_id for run_id in run_ids}
        if not resources:
            return {}
        request = {"event": {"prefix": [POD_EVENTS]}, "related": {"id": sorted(resources)}, "order": "ASC"}
        page = self._post("/events/filter", {"filter": request, "limit": MAX_EVENTS_PAGE})
        return {
            resources[related["prefect.resource.id"]]: str(event["resource"][DIAGNOSIS])
            for event in page["events"]
            if DIAGNOSIS in event["resource"]
            for related in event["related"]
            if related["prefect.resource.id"] in resources
        }

    def cancel(self, run_id: UUID, message: str) -> None:
        """End a run that has no process."""
        cancelled = {"type": "CANCELLED", "name": "Cancelled", "message": message}
        self._post(f"/flow_runs/{run_id}/set_state", {"state": cancelled, "force": True})

    def crash(self, run_id: UUID, message: str) -> bool:
        """Mark a run as crashed that would otherwise be shown as running for ever.

        Returns:
            False for a run that has ended by itself meanwhile, which keeps its state.
        """
        crashed = {"type": "CRASHED", "name": "Crashed", "message": message}
        # without force: Prefect refuses to crash a run that has ended
        answer = self._post(f"/flow_runs/{run_id}/set_state", {"state": crashed})
        return bool(answer["status"] == "ACCEPT")

    def add_ended(self, flow: str, name: str, state: str, message: str, lines: Sequence[str]) -> None:
        """Add a run that has ended elsewhere to the runs of the deployment named like the flow.

        Args:
            state: Prefect's type of the state: `COMPLETED`.
            lines: log of the run.
        """
        deployment = self.client.get(f"/deployments/name/{flow}/{flow}").raise_for_status().json()
        run = self._post(
            "/flow_runs/",
            {
                "flow_id": deployment["flow_id"],
                "deployment_id": deployment["id"],
                "name": name,
                "tags": deployment["tags"],
                "state": {"type": state, "name": state.capitalize(), "message": message},
            },
        )
        if lines:
            log = {"name": "clm", "level": logging.INFO, "flow_run_id": run["id"]}
            at = datetime.fromisoformat(run["created"])
            # in the order of their times
            times = (at + timedelta(microseconds=number) for number in range(len(lines)))
            body = [
                log | {"message": line, "timestamp": time.isoformat()}
                for line, time in zip(lines, times, strict=True)
            ]
            self.client.post("/logs/", json=body).raise_for_status()

    def failed_actions(self, since: datetime) -> dict[str, str]:
        """Newest reason of failure of each automation whose action failed, by name.

        An action that should have ended a run is left out once the run has ended by itself: a run may end
        while the action is on its way, on a busy machine minutes later.
        """
        failed = list(self._events(["prefect.automation.action.failed"], since))
        runs = self.read({run_id for event in failed for run_id in _runs_to_end(event)})
        return {
            _automation(event): str(event["payload"]["reason"])
            for event in failed
            if not _is_moot([runs[run_id] for run_id in _runs_to_end(event)])
        }

    def failed_runs(self, since: datetime) -> dict[UUID, tuple[str, str]]:
        """Failed and crashed runs of our deployments: deployment and reason of each, newest first."""
        request = {
            "flow_runs": {
                "state": {"type": {"any_": ["FAILED", "CRASHED"]}},
                "end_time": {"after_": since.isoformat()},
            },
            "deployments": {"tags": {"all_": [DEPLOYMENTS_TAG]}},
        }
        runs = self._post("/flow_runs/filter", request | {"sort": "END_TIME_DESC", "limit": MAX_PAGE})
        ids = sorted({run["deployment_id"] for run in runs})
        deployments = self._post("/deployments/filter", {"deployments": {"id": {"any_": ids}}})
        names = {deployment["id"]: deployment["name"] for deployment in deployments}
        return {
            UUID(run["id"]): (names[run["deployment_id"]], _run(run["state"]).description) for run in runs
        }

    def prune(self, before: datetime, failed_before: datetime) -> int:
        """Delete ended runs of scheduled passes, the newest `MAX_DELETED` of each kind at most.

        Args:
            before: end of the newest completed run to delete.
            failed_before: end of the newest run that ended otherwise to delete.

        Returns:
            Number of runs deleted.
        """
        request = {"deployments": {"tags": {"all_": [DEPLOYMENTS_TAG, HOUSEKEEPING_TAG]}}}
        ids = [deployment["id"] for deployment in self._post("/deployments/filter", request)]
        if not ids:
            return 0
        of_passes = {"deployment_id": {"any_": ids}}
        completed = {
            "state": {"type": {"any_": ["COMPLETED"]}},
            "end_time": {"before_": before.isoformat()},
        }
        others = {
            "state": {"type": {"any_": sorted(ENDED - {"COMPLETED"})}},
            "end_time": {"before_": failed_before.isoformat()},
        }
        answers = [
            self._post("/flow_runs/bulk_delete", {"flow_runs": of_passes | ended, "limit": MAX_DELETED})
            for ended in (completed, others)
        ]
        return sum(len(answer["deleted"]) for answer in answers)

    def events(self, names: Sequence[str], since: datetime) -> list[PrefectEvent]:
        """All events of the given names, oldest first."""
        events = self._events(names, since)
        return [
            PrefectEvent(
                event["id"], event["event"], event["payload"], event["resource"]["prefect.resource.id"]
            )
            for event in events
        ]

    def _events(self, names: Sequence[str], since: datetime) -> Iterator[dict[str, Any]]:
        request = {"event": {"name": list(names)}, "occurred": {"since": since.isoformat()}, "order": "ASC"}
        page = self._post("/events/filter", {"filter": request, "limit": MAX_EVENTS_PAGE})
        yield from page["events"]
        while next_page := page["next_page"]:
            # the query alone, since the server may not be reachable under the address in the link
            query = urlsplit(next_page).query
            page = self.client.get(f"/events/filter/next?{query}").raise_for_status().json()
            yield from page["events"]

    def _post(self, path: str, request: Mapping[str, Any]) -> Any:
        return self.client.post(path, json=request).raise_for_status().json()


@contextlib.contextmanager
def prefect_runs(home: Path) -> Iterator[Runs]:
    """Client of the Prefect server set as the API of this process, or of the server of `clm up`.

    Raises:
        ServerUnavailable: no server is known, or the server does not answer or refuses; try again later.
    """
    import httpx

    url, auth = _known_api(home)
    user, _, password = auth.partition(":")
    try:
        with httpx.Client(
            base_url=url,
            auth=(user, password) if user else None,
            timeout=10,
            verify=trusted_certificates(),
        ) as client:
            yield Runs(client)
    except httpx.HTTPError as error:
        raise ServerUnavailable(f"Prefect did not carry out the request: {error}") from error


def knows_prefect(home: Path) -> bool:
    """True if a Prefect server is known: the API of this process, or the server of `clm up`."""
    return _api_of_process() is not None or running(home) is not None


def _api_of_process() -> tuple[str, str] | None:
    """Address, and name and password, of the API of this process; None without one.

    Variables alone need no import of Prefect, a second and 60 MB; settings and profiles of Prefect count as
    well.
    """
    if "prefect.settings" not in sys.modules and (url := os.environ.get("PREFECT_API_URL")):
        return url, os.environ.get("PREFECT_API_AUTH_STRING", "")
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    url = PREFECT_API_URL.value()
    return (url, PREFECT_API_AUTH_STRING.value() or "") if url else None


def _known_api(home: Path) -> tuple[str, str]:
    """Address, and name and password."""
    if (known := _api_of_process()) is not None:
        return known
    if stack := running(home):
        return stack.prefect_api_url, prefect_auth(home)
    raise ServerUnavailable("no Prefect server is known: start `clm up`, or set PREFECT_API_URL")


def _automation(event: Mapping[str, Any]) -> str:
    return str(event["resource"]["prefect.resource.name"])


def _runs_to_end(failed_action: Mapping[str, Any]) -> list[UUID]:
    """Runs whose state the action should have changed; empty for an action of another type."""
    if failed_action["payload"]["action_type"] != "change-flow-run-state":
        return []
    targets = [
        related["prefect.resource.id"]
        for related in failed_action["related"]
        if related["prefect.resource.role"] == "target"
    ]
    return [UUID(target.removeprefix(RUN_RESOURCE)) for target in targets if target.startswith(RUN_RESOURCE)]


def _is_moot(runs: Sequence[Run]) -> bool:
    """True if there were runs to end, and none is under way any more."""
    return bool(runs) and all(run.state is not RunState.UNDER_WAY for run in runs)


def _run(state: Mapping[str, Any]) -> Run:
    ended = state["type"] in ENDED
    description = ": ".join(part for part in (state["name"], state["message"]) if part)
    return Run(RunState.ENDED if ended else RunState.UNDER_WAY, description, state["type"] == "CANCELLED")
