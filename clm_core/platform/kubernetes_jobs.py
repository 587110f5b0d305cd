"""Jobs of a Kubernetes cluster: creation, state, removal, and the reason why a Job gives no result."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_core.domain.errors import ClusterRefused, ClusterUnavailable, MissingExtra, SettingsError

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from kubernetes_asyncio.client import ApiClient

REQUEST_SECONDS = 10.0
NAMESPACE_OF_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
TOKEN_OF_POD = NAMESPACE_OF_POD.with_name("token")
IN_POD = "KUBERNETES_SERVICE_HOST"
"""Variable that Kubernetes sets in every pod."""
NO_CLUSTER = (
    'training.where = "kubernetes", and this process has no configuration of a cluster: in a pod, give it a '
    "service account with a token and the rights of docs/how-to/kubernetes.md; elsewhere, let KUBECONFIG "
    "name a kubeconfig."
)
NO_IMAGE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"}
)
"""Kubernetes' reasons for a container without an image."""
NO_CONTAINER = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
Object = Mapping[str, Any]
"""An object of the API as JSON."""


@dataclass(frozen=True)
class Cluster:
    """Namespace of a cluster, with the rights of the service account or the user of the process."""

    namespace: str
    _client: "ApiClient"
    _portal: "BlockingPortal"

    def create(self, job: Object) -> None:
        """Create a Job.

        Raises:
            ClusterRefused: a quota, a missing right, or a name in use (status 409).
        """
        self._batch("create the Job", "create_namespaced_job", body=job)

    def job(self, name: str) -> Object | None:
        try:
            return self._batch("read the Job", "read_namespaced_job", name=name)
        except ClusterRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def delete(self, name: str) -> None:
        """Delete a Job with its pods; the Job is there until the last pod has ended."""
        body = {"propagationPolicy": "Foreground"}
        try:
            self._batch("delete the Job", "delete_namespaced_job", name=name, body=body)
        except ClusterRefused as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def pods(self, labels: Mapping[str, str]) -> Sequence[Object]:
        """Pods with the labels, oldest first."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        pods = self._core("list the pods", "list_namespaced_pod", label_selector=selector)["items"]
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))

    def warnings(self, name: str) -> list[str]:
        """Messages of the warnings about an object, a Job or a pod."""
        selector = f"involvedObject.name={name},type=Warning"
        events = self._core("list the events", "list_namespaced_event", field_selector=selector)["items"]
        return [str(event.get("message", event.get("reason"))) for event in events]

    def forbidden(self) -> list[str]:
        """Missing rights for Jobs in pods: `create jobs`."""
        needed = [("batch", "jobs", verb) for verb in ("create", "get", "delete")]
        needed += [("", "pods", "list"), ("", "events", "list")]
        return [f"{verb} {kind}" for group, kind, verb in needed if not self._may(group, kind, verb)]

    def _may(self, group: str, kind: str, verb: str) -> bool:
        from kubernetes_asyncio.client import AuthorizationV1Api

        right = {"namespace": self.namespace, "group": group, "resource": kind, "verb": verb}
        request = AuthorizationV1Api(self._client).create_self_subject_access_review
        body = {"spec": {"resourceAttributes": right}}
        return bool(self._answer("review the rights", request, body=body)["status"].get("allowed"))

    def _batch(self, request: str, method: str, **arguments: Any) -> Object:
        from kubernetes_asyncio.client import BatchV1Api

        call = getattr(BatchV1Api(self._client), method)
        return self._answer(request, call, namespace=self.namespace, **arguments)

    def _core(self, request: str, method: str, **arguments: Any) -> Object:
        from kubernetes_asyncio.client import CoreV1Api

        call = getattr(CoreV1Api(self._client), method)
        return self._answer(request, call, namespace=self.namespace, **arguments)

    def _answer(self, request: str, call: Callable[..., Awaitable[Any]], **arguments: Any) -> Object:
        from aiohttp import ClientError

        status: int
        content: dict[str, Any]
        try:
            status, content = self._portal.call(_requested, call, arguments)
        except (ClientError, OSError) as error:
            problem = str(error) or type(error).__name__
            raise ClusterUnavailable(f"Kubernetes does not answer: {problem}") from error
        reason = str(content.get("message", f"status {status}"))
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ClusterUnavailable(f"Kubernetes did not {request}: {reason}")
        if status >= HTTPStatus.BAD_REQUEST:
            raise ClusterRefused(request, status, reason)
        return content


def is_pod_without_token() -> bool:
    """True in a pod whose service account has no token: the cluster is known, and refuses to be asked."""
    return IN_POD in os.environ and not TOKEN_OF_POD.exists()


@contextmanager
def cluster(namespace: str | None) -> Iterator[Cluster]:
    """The cluster around the pod of the process, or the cluster of the kubeconfig.

    Args:
        namespace: namespace of the Jobs; by default the namespace of the pod, or of the kubeconfig.

    Raises:
        MissingExtra: the client of Kubernetes is not installed.
        SettingsError: no cluster is configured.
    """
    try:
        import kubernetes_asyncio  # noqa: F401
    except ImportError as error:
        raise MissingExtra("kubernetes-asyncio", "kubernetes") from error
    from anyio.from_thread import start_blocking_portal

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_connected()) as (client, own_namespace),
    ):
        yield Cluster(namespace or own_namespace, client, portal)


@asynccontextmanager
async def _connected() -> AsyncIterator[tuple["ApiClient", str]]:
    """Client, and the namespace of the pod or of the kubeconfig."""
    from kubernetes_asyncio import config
    from kubernetes_asyncio.client import ApiClient, Configuration

    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
        namespace = NAMESPACE_OF_POD.read_text(encoding="utf-8").strip()
    except config.ConfigException:
        namespace = await _by_kubeconfig(configuration)
    async with ApiClient(configuration) as client:
        yield client, namespace


async def _by_kubeconfig(configuration: Any) -> str:
    from kubernetes_asyncio import config

    files = os.environ.get("KUBECONFIG", "~/.kube/config")
    if not any(Path(file).expanduser().is_file() for file in files.split(os.pathsep) if file):
        raise SettingsError(NO_CLUSTER)
    try:
        loader = await config.load_kube_config(
            config_file=os.path.expanduser(files),
            client_configuration=configuration,
            persist_config=False,
        )
    except (config.ConfigException, OSError) as error:
        raise SettingsError(NO_CLUSTER) from error
    return str(loader.current_context["context"].get("namespace", "default"))


async def _requested(
    call: Callable[..., Awaitable[Any]], arguments: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    response = await call(**arguments, _preload_content=False, _request_timeout=REQUEST_SECONDS)
    try:
        content = await response.json(content_type=None)
    except ValueError:
        content = None
    return response.status, content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Trouble:
    """Reason why a Job gives no result."""

    cause: str
    """The word of Kubernetes first: `OOMKilled: …`."""
    is_final: bool
    """False for a reason that may pass, as a failed pull of the image."""
    log: str = ""
    """End of the log of a failed container."""


def trouble_of(job: Object | None, pod: Object | None, warnings: Sequence[str]) -> Trouble | None:
    """Reason why a Job gives no result, if there is any.

    Args:
        job: the Job; None after its deletion.
        pod: newest pod of the Job, if there is any.
        warnings: warnings about a Job without a pod.
    """
    if job is None or job["metadata"].get("deletionTimestamp"):
        return Trouble("JobDeleted: somebody deleted the Job", is_final=True)
    if pod is not None and (trouble := _of_pod(pod["status"])):
        return trouble
    failed = _condition(job["status"], "Failed")
    if failed is not None:
        message = failed.get("message", "")
        if pod is None and failed.get("reason") == "BackoffLimitExceeded":
            return Trouble(f"Evicted: the pod was deleted ({message})", is_final=True)
        return Trouble(f"{failed.get('reason')}: {message}", is_final=True)
    if pod is None and warnings:
        return Trouble(f"the Job gets no pod: {warnings[-1]}", is_final=False)
    return None


def has_begun(pod: Object | None) -> bool:
    """True from the start of the container on."""
    if pod is None:
        return False
    states = (each.get("state", {}) for each in _containers(pod["status"]))
    return any(state.get(name) is not None for state in states for name in ("running", "terminated"))


def has_succeeded(pod: Object | None) -> bool:
    return pod is not None and pod["status"].get("phase") == "Succeeded"


def delay_of(pod: Object | None) -> str | None:
    """Reason of the scheduler why a pod has no node, if the pod has none."""
    scheduled = None if pod is None else _condition(pod["status"], "PodScheduled", "False")
    return None if scheduled is None else f"{scheduled.get('reason')}: {scheduled.get('message')}"


def _of_pod(status: Object) -> Trouble | None:
    disrupted = _condition(status, "DisruptionTarget")
    states = [each.get("state", {}) for each in _containers(status)]
    ended = [state["terminated"] for state in states if state.get("terminated")]
    killed = next((each for each in ended if each.get("reason") == "OOMKilled"), None)
    if killed is not None:
        return Trouble("OOMKilled: the pod used more memory than its limit", True, _log(killed))
    if status.get("reason") == "Evicted" or disrupted is not None:
        message = status.get("message") or (disrupted or {}).get("message") or "the pod was evicted"
        return Trouble(f"Evicted: {message}", is_final=True)
    failed = next((each for each in ended if each.get("exitCode")), None)
    if failed is not None:
        last = _log(failed).splitlines()[-1:]
        return Trouble(f"exit code {failed['exitCode']}: {' '.join(last)}", True, _log(failed))
    if status.get("phase") == "Failed":
        return Trouble(f"{status.get('reason', 'Failed')}: {status.get('message', '')}", is_final=True)
    return next((_stuck(state["waiting"]) for state in states if _is_stuck(state.get("waiting"))), None)


def _containers(status: Object) -> Sequence[Object]:
    return status.get("containerStatuses") or ()


def _is_stuck(waiting: Object | None) -> bool:
    return waiting is not None and waiting.get("reason") in NO_IMAGE | NO_CONTAINER


def _stuck(waiting: Object) -> Trouble:
    reason = waiting["reason"]
    words = f"ImagePullError: {reason}" if reason in NO_IMAGE else reason
    return Trouble(f"{words}: {waiting.get('message', '')}", is_final=False)


def _condition(status: Object, kind: str, value: str = "True") -> Object | None:
    conditions = (each for each in status.get("conditions") or () if each.get("type") == kind)
    return next((each for each in conditions if each.get("status") == value), None)


def _log(terminated: Object) -> str:
    return str(terminated.get("message") or "").strip()
