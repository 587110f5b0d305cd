"""The part of a Kubernetes API server that prefect-kubernetes and CLM use.

Pods end as a test says, or are processes of this machine.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

NAMESPACE = "clm"
PODS = "pods"
JOBS = "jobs"
RESOURCES = {
    "v1": [("pods", "Pod"), ("events", "Event"), ("namespaces", "Namespace")],
    "batch/v1": [("jobs", "Job")],
}


@dataclass
class FakeCluster:
    """Jobs as they were created; `pod_status` is the status of the pod of the next Job."""

    created: list[dict[str, Any]] = field(default_factory=list)
    refusal: str | None = None
    """Message of the answer 403 to the creation of a Job."""
    pod_status: dict[str, Any] = field(default_factory=dict)
    fails: bool = False
    """True if the Job fails together with its pod."""
    runs_pods: bool = False
    """True if pods are processes of this machine, with command line and variables of the container."""
    warning: str | None = None
    """Message of a warning about every Job."""
    lost_answers: int = 0
    """Number of Jobs that are created without an answer to the client."""
    forbidden: set[str] = field(default_factory=set)
    """Rights that a review denies: `create jobs`."""
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    """Process of each pod, by the name of the Job."""
    _objects: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {PODS: [], JOBS: []})
    _watchers: dict[str, set["asyncio.Queue[dict[str, Any] | None]"]] = field(
        default_factory=lambda: {PODS: set(), JOBS: set()}
    )
    _version: int = 1
    _tasks: list["asyncio.Future[None]"] = field(default_factory=list)

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/version", _answer({"major": "1", "minor": "37"})),
                web.get("/api", _answer({"kind": "APIVersions", "versions": ["v1"]})),
                web.get("/apis", _answer(_groups())),
                web.get("/api/v1", _answer(_resources("v1"))),
                web.get("/apis/batch/v1", _answer(_resources("batch/v1"))),
                web.post(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", self._create),
                web.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", self._jobs),
                web.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{{name}}", self._job),
                web.delete(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{{name}}", self._delete),
                web.get(f"/api/v1/namespaces/{NAMESPACE}/events", self._events),
                web.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._review),
                web.get(f"/api/v1/namespaces/{NAMESPACE}/pods", self._pods),
                web.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{{name}}/log", _answer({})),
            ]
        )
        return app

    async def _create(self, request: web.Request) -> web.Response:
        if self.refusal is not None:
            return _refused(403, self.refusal)
        job = await request.json()
        metadata = job["metadata"]
        name = metadata.get("name") or metadata.pop("generateName") + uuid.uuid4().hex[:5]
        if self._named(JOBS, name):
            return _refused(409, f'jobs.batch "{name}" already exists')
        self.created.append(json.loads(json.dumps(job)))
        self._put(JOBS, job, name, {"active": 1})
        if self.warning is None:
            self._start(job, name)
        if self.lost_answers:
            self.lost_answers -= 1
            return _refused(504, "the request timed out")
        return web.json_response(job, status=201)

    def _start(self, job: dict[str, Any], name: str) -> None:
        template = job["spec"]["template"]
        pod = {"metadata": dict(template["metadata"]), "spec": template["spec"]}
        self._put(PODS, pod, f"{name}-pod", {"phase": "Pending"})
        if self.runs_pods:
            self._tasks.append(asyncio.ensure_future(self._run(job, pod, name)))
        else:
            asyncio.get_running_loop().call_later(1, self._end, job, pod)

    async def _run(self, job: dict[str, Any], pod: dict[str, Any], name: str) -> None:
        container = pod["spec"]["containers"][0]
        variables = {each["name"]: each["value"] for each in container["env"]}
        command = [sys.executable, *container["command"][1:], *container["args"]]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | variables
            )
            self.processes[name] = process
            self._change(PODS, pod, _status("Running", {"running": {}}))
            while process.poll() is None:
                await asyncio.sleep(0.05)
            log.seek(0)
            written = log.read().decode(errors="replace")
        ended = {"exitCode": process.returncode, "reason": "Completed"}
        if process.returncode:
            # the kernel kills by SIGKILL where memory runs out
            killed = process.returncode == -9
            ended |= {"reason": "OOMKilled" if killed else "Error", "message": written[-2048:]}
        self._change(
            PODS, pod, _status("Failed" if process.returncode else "Succeeded", {"terminated": ended})
        )
        condition = "Failed" if process.returncode else "Complete"
        self._change(JOBS, job, {"conditions": [{"type": condition, "status": "True"}]})

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        jobs = self._named(JOBS, name)
        if not jobs:
            return web.json_response({"code": 404}, status=404)
        jobs[0]["metadata"]["deletionTimestamp"] = "2026-11-30T08:00:00Z"
        process = self.processes.get(name)
        if process is not None:
            process.kill()
        asyncio.get_running_loop().call_later(0.3, self._remove, name)
        return web.json_response(jobs[0])

    def _remove(self, name: str) -> None:
        for kind, owned in ((JOBS, name), (PODS, f"{name}-pod")):
            self._objects[kind] = [each for each in self._objects[kind] if each["metadata"]["name"] != owned]

    def remove_pods(self) -> None:
        """Fail all Jobs by the removal of their pods, as the drain of a node does."""
        self._objects[PODS] = []
        for job in self._objects[JOBS]:
            condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
            self._change(JOBS, job, {"conditions": [condition]})

    def names(self) -> list[str]:
        """Names of the Jobs there are."""
        return [job["metadata"]["name"] for job in self._objects[JOBS]]

    async def _events(self, request: web.Request) -> web.Response:
        items = [] if self.warning is None else [{"type": "Warning", "message": self.warning}]
        return web.json_response({"kind": "EventList", "items": items})

    async def _review(self, request: web.Request) -> web.Response:
        review = await request.json()
        right = review["spec"]["resourceAttributes"]
        allowed = f"{right['verb']} {right['resource']}" not in self.forbidden
        return web.json_response(review | {"status": {"allowed": allowed}}, status=201)

    def _end(self, job: dict[str, Any], pod: dict[str, Any]) -> None:
        self._change(PODS, pod, self.pod_status)
        if self.fails:
            self._change(JOBS, job, {"failed": 1, "conditions": [{"type": "Failed", "status": "True"}]})

    def _put(self, kind: str, thing: dict[str, Any], name: str, status: dict[str, Any]) -> None:
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        thing["apiVersion"], thing["kind"] = ("v1", "Pod") if kind == PODS else ("batch/v1", "Job")
        thing["metadata"] |= {
            "name": name,
            "namespace": NAMESPACE,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": created,
            "resourceVersion": self._next_version(),
        }
        thing["status"] = status
        self._objects[kind].append(thing)
        self._notify(kind, "ADDED", thing)

    def _change(self, kind: str, thing: dict[str, Any], status: dict[str, Any]) -> None:
        thing["status"] = status
        thing["metadata"]["resourceVersion"] = self._next_version()
        self._notify(kind, "MODIFIED", thing)

    def _next_version(self) -> str:
        self._version += 1
        return str(self._version)

    def _notify(self, kind: str, change: str, thing: dict[str, Any]) -> None:
        for queue in self._watchers[kind]:
            queue.put_nowait({"type": change, "object": json.loads(json.dumps(thing))})

    async def _pods(self, request: web.Request) -> web.StreamResponse:
        return await self._list_or_watch(PODS, "PodList", request)

    async def _jobs(self, request: web.Request) -> web.StreamResponse:
        return await self._list_or_watch(JOBS, "JobList", request)

    def _named(self, kind: str, name: str) -> list[dict[str, Any]]:
        return [each for each in self._objects[kind] if each["metadata"]["name"] == name]

    async def _job(self, request: web.Request) -> web.Response:
        jobs = self._named(JOBS, request.match_info["name"])
        return web.json_response(jobs[0]) if jobs else web.json_response({"code": 404}, status=404)

    async def _list_or_watch(self, kind: str, list_kind: str, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") != "true":
            items = [each for each in self._objects[kind] if _selected(each, request)]
            version = {"resourceVersion": str(self._version)}
            return web.json_response({"kind": list_kind, "metadata": version, "items": items})
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._watchers[kind].add(queue)
        try:
            while (change := await queue.get()) is not None:
                await stream.write(json.dumps(change).encode() + b"\n")
        finally:
            self._watchers[kind].discard(queue)
        return stream

    def end_watches(self) -> None:
        for queue in (*self._watchers[PODS], *self._watchers[JOBS]):
            queue.put_nowait(None)


@contextmanager
def serving(cluster: FakeCluster, kubeconfig: Path) -> Iterator[None]:
    """Serve the API on 127.0.0.1, with a file that names the address."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(cluster.application(), shutdown_timeout=0)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    context = {"cluster": "fake", "user": "fake", "namespace": NAMESPACE}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "fake", "user": {"token": "fake"}}],
        "contexts": [{"name": "fake", "context": context}],
    }
    kubeconfig.write_text(json.dumps(content))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(cluster.end_watches)
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _refused(status: int, message: str) -> web.Response:
    content = {"kind": "Status", "code": status, "message": message}
    return web.json_response(content, status=status)


def _status(phase: str, state: dict[str, Any]) -> dict[str, Any]:
    return {"phase": phase, "containerStatuses": [{"name": "training", "state": state}]}


def _answer(content: dict[str, Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(content)

    return answer


def _groups() -> dict[str, Any]:
    version = {"groupVersion": "batch/v1", "version": "v1"}
    group = {"name": "batch", "versions": [version], "preferredVersion": version}
    return {"kind": "APIGroupList", "groups": [group]}


def _resources(version: str) -> dict[str, Any]:
    verbs = ["create", "delete", "get", "list", "watch", "patch", "update"]
    listed = [
        {"name": name, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": verbs}
        for name, kind in RESOURCES[version]
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}


def _selected(thing: dict[str, Any], request: web.Request) -> bool:
    labels = thing["metadata"].get("labels", {})
    terms = [term.partition("=") for term in request.query.get("labelSelector", "").split(",") if term]
    return all(labels.get(name) == value if equals else name in labels for name, equals, value in terms)
