"""Training in the pod of a Kubernetes Job, with the folder on a volume that the run and the pod share."""

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from clm_core.domain.errors import ClusterRefused, ClusterUnavailable, SettingsError, TrainingFailed
from clm_core.domain.progress import Announce
from clm_core.domain.training_settings import TrainingSettings
from clm_core.platform.kubernetes_jobs import (
    Cluster,
    Object,
    Trouble,
    cluster,
    delay_of,
    has_begun,
    has_succeeded,
    is_pod_without_token,
    trouble_of,
)
from clm_core.retraining import training
from clm_core.retraining.training_following import LOG_TAIL, TrainingTask, follow
from clm_core.retraining.training_manifest import (
    ATTEMPT,
    SILENCE_SECONDS,
    job_manifest,
    job_name,
    labels_of,
    require_on_volume,
)
from clm_core.retraining.training_messages import alive

PAUSE_SECONDS = 0.5
"""Time between two readings of the messages."""
LOOK_SECONDS = 3.0
"""Time between two looks at Job and pod."""
PASSING_SECONDS = 20.0
"""Time for which a reason that may pass, as an image that cannot be pulled, is waited for."""
AWAY_SECONDS = 300.0
"""Time without an answer of the cluster after which the training is given up."""
PATIENCE_SECONDS = 45.0
"""Time for which the cluster may be away before a training has begun."""
REMOVAL_SECONDS = 120.0
"""Longest wait for the end of the Job of an earlier try."""
LATE_SECONDS = 30.0
"""Longest wait for the last message of a pod that succeeded, on a volume that shows files late."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


def train_in_pod(task: TrainingTask, settings: TrainingSettings, announce: Announce) -> None:
    """Train in a pod, which ends at the time limit, with the run, and when the run is interrupted.

    The Job of an earlier try of the same job is deleted first.

    Raises:
        TrainingFailed: the training exceeded a limit, or its pod did not start or died; with Kubernetes' word
            for the reason.
        ClusterUnavailable: the cluster refuses the Job, or does not answer.
        CLMError: the error raised by the training.
        MissingExtra: the client of Kubernetes is not installed.
        SettingsError: no cluster is configured, or the folder is not on the volume of the claim.
    """
    attempt = uuid.uuid4().hex
    manifest = job_manifest(task, settings, attempt)
    with cluster(settings.kubernetes.namespace) as jobs:
        _remove(jobs, job_name(task))
        training.clear_results(task.folder)
        training.write_input(task.spec, task.bars, task.folder)
        announce("Waiting for a pod", 0.0)
        with alive(task.folder, SILENCE_SECONDS), _created(jobs, manifest, attempt) as name:
            pod = TrainingPod(jobs, name, task, settings.kubernetes.start_seconds, announce)
            follow(pod, task.folder, announce, settings.limit_seconds)


def require_pods(home: Path, settings: TrainingSettings) -> None:
    """Refuse settings by which no training would get a pod.

    The rights are left out in a pod without a token: such are the pods of the chart other than the runs.

    Raises:
        SettingsError: the home is not on the volume of the claim, no cluster is configured, or the rights for
            Jobs are missing.
        MissingExtra: the client of Kubernetes is not installed.
        ClusterUnavailable: the cluster does not answer.
    """
    require_on_volume(home, settings.kubernetes)
    if is_pod_without_token():
        return
    with cluster(settings.kubernetes.namespace) as jobs:
        if missing := jobs.forbidden():
            raise SettingsError(
                f'training.where = "kubernetes": this process may not {", ".join(missing)} in the namespace '
                f"{jobs.namespace}. Give its service account or user a role with these rights."
            )


@dataclass
class TrainingPod:
    """A training in a pod."""

    jobs: Cluster
    name: str
    task: TrainingTask
    start_seconds: float
    announce: Announce
    has_begun: bool = False
    _created: float = field(default_factory=time.monotonic)
    _next_look: float = 0.0
    _answered: float = field(default_factory=time.monotonic)
    _succeeded: float | None = None
    _stuck: float | None = None
    _delay: str | None = None

    def pause(self) -> None:
        time.sleep(PAUSE_SECONDS)

    def failure(self) -> TrainingFailed | None:
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + LOOK_SECONDS
        try:
            job = self.jobs.job(self.name)
            pod = next(reversed(self.jobs.pods(labels_of(self.task))), None)
            warnings = self.jobs.warnings(self.name) if pod is None else []
        except ClusterRefused:
            raise
        except ClusterUnavailable:
            if now - self._answered > AWAY_SECONDS:
                raise
            return None
        self._answered = now
        self.has_begun = self.has_begun or has_begun(pod)
        self._show_delay(pod)
        return self._ended(trouble_of(job, pod, warnings), pod, now) or self._too_late(pod, now)

    def _ended(self, trouble: Trouble | None, pod: Object | None, now: float) -> TrainingFailed | None:
        if has_succeeded(pod):
            self._succeeded = self._succeeded or now
            if now - self._succeeded <= LATE_SECONDS:
                return None
            return _failed("its messages are not in the folder: is the claim another volume?")
        if trouble is None:
            self._stuck = None
            return None
        self._stuck = self._stuck or now
        if trouble.is_final or now - self._stuck > PASSING_SECONDS:
            return _failed(trouble.cause, trouble.log)
        return None

    def _too_late(self, pod: Object | None, now: float) -> TrainingFailed | None:
        if self.has_begun or now - self._created <= self.start_seconds:
            return None
        warnings = [] if pod is None else self.jobs.warnings(pod["metadata"]["name"])
        why = delay_of(pod) or next(reversed(warnings), "Kubernetes gives no reason")
        return TrainingFailed(
            f"the pod of the training did not start within {self.start_seconds:g} s "
            f"(training.kubernetes.start_seconds): {why}"
        )

    def _show_delay(self, pod: Object | None) -> None:
        delay = delay_of(pod)
        if delay is not None and delay != self._delay:
            self._delay = delay
            self.announce(f"Waiting for a node: {delay}", 0.0)


@contextlib.contextmanager
def _created(jobs: Cluster, manifest: Object, attempt: str) -> Iterator[str]:
    """Name of a new Job, which is deleted if the block fails."""
    name = str(manifest["metadata"]["name"])
    try:
        _create(jobs, manifest, attempt)
        yield name
    except BaseException:
        _give_up(jobs, name, attempt)
        raise


def _create(jobs: Cluster, manifest: Object, attempt: str) -> None:
    try:
        _patiently(partial(jobs.create, manifest))
    except ClusterRefused as error:
        # the answer to an earlier request was lost
        if error.status == HTTPStatus.CONFLICT and _is_of(jobs.job(manifest["metadata"]["name"]), attempt):
            return
        raise


def _patiently(request: Callable[[], T]) -> T:
    """Answer to a request, which is repeated while the cluster does not answer."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return request()
        except ClusterRefused:
            raise
        except ClusterUnavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(LOOK_SECONDS)


def _is_of(job: Object | None, attempt: str) -> bool:
    """True for the Job of this try; another run may have replaced the Job."""
    return job is not None and job["metadata"].get("annotations", {}).get(ATTEMPT) == attempt


def _give_up(jobs: Cluster, name: str, attempt: str) -> None:
    """Delete the Job of a try if it still runs; the log of an ended Job stays for a while."""
    try:
        job = jobs.job(name)
        if job is not None and _is_of(job, attempt) and not job["status"].get("conditions"):
            jobs.delete(name)
    except ClusterUnavailable as error:
        logger.warning(
            "The Job %s was not deleted: %s. Its training ends within %g s.", name, error, SILENCE_SECONDS
        )


def _remove(jobs: Cluster, name: str) -> None:
    """Delete the Job of an earlier try, and wait for the end of its pod."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while _patiently(partial(jobs.job, name)) is not None:
        _patiently(partial(jobs.delete, name))
        if time.monotonic() > deadline:
            raise TrainingFailed(
                f"the Job {name} of an earlier try did not end within {REMOVAL_SECONDS:g} s: delete it and "
                "its pod, then retrain"
            )
        time.sleep(PAUSE_SECONDS)


def _failed(cause: str, log: str = "") -> TrainingFailed:
    error = TrainingFailed(f"the pod of the training failed: {cause}")
    error.add_note(log[-LOG_TAIL:])
    return error
