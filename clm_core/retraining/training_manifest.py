"""Kubernetes Job of a training, and the folders of the home in its pod."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clm_core.domain.errors import SettingsError
from clm_core.domain.training_settings import TrainingPodSettings, TrainingSettings
from clm_core.models.own import FeaturesInUse
from clm_core.platform import tracing
from clm_core.retraining.training_following import TrainingTask

LABEL = "clm-training"
"""Label of Job and pod with the id of the retraining job."""
ATTEMPT = "clm-attempt"
"""Annotation that tells the Job of one try from that of another."""
NUMBA_CACHE = "NUMBA_CACHE_DIR"
SILENCE_SECONDS = 90.0
"""Time without a sign of life of the run after which a pod ends its training."""
GRACE_SECONDS = 5
"""Time between the order to end and the end of a pod."""
CONTAINER = "training"


def job_name(task: TrainingTask) -> str:
    """Name of the Job, the same at every try."""
    return f"clm-training-{task.name}"


def labels_of(task: TrainingTask) -> dict[str, str]:
    return {LABEL: task.name}


def job_manifest(task: TrainingTask, settings: TrainingSettings, attempt: str) -> dict[str, Any]:
    """The Job of a training.

    The deadline of the Job is the last resort, where neither the run nor the pod is able to end the training.

    Args:
        attempt: a name for this try.

    Raises:
        SettingsError: a file or folder of the training is not on the volume of the claim.
    """
    pod = settings.kubernetes
    labels = {**pod.labels, **labels_of(task)}
    deadline = pod.start_seconds + settings.limit_seconds + SILENCE_SECONDS
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name(task), "labels": labels, "annotations": {ATTEMPT: attempt}},
        "spec": {
            # a training is never repeated by Kubernetes: the run would follow the wrong pod
            "backoffLimit": 0,
            "activeDeadlineSeconds": math.ceil(deadline),
            "ttlSecondsAfterFinished": pod.keep_seconds,
            "template": {"metadata": {"labels": labels}, "spec": _pod(task, pod)},
        },
    }


def require_on_volume(path: Path, pod: TrainingPodSettings) -> Path:
    """Path relative to the volume of the claim.

    Raises:
        SettingsError: the path is not below the mount path.
    """
    if not path.is_relative_to(pod.mount_path):
        raise SettingsError(
            f"{path} is not below training.kubernetes.mount_path ({pod.mount_path}), where the volume of the "
            f"claim {pod.claim} is mounted: move it onto the volume (CLM_HOME names the home), or name the "
            "folder at which this machine has the volume."
        )
    return path.relative_to(pod.mount_path)


def _pod(task: TrainingTask, pod: TrainingPodSettings) -> dict[str, Any]:
    silence = ["--caller-silence", f"{SILENCE_SECONDS:g}"]
    variables = {NUMBA_CACHE: _numba_cache(pod) or "/tmp/numba", **tracing.variables()}
    gpus = {pod.gpu_resource: str(pod.gpus)} if pod.gpus else {}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "serviceAccountName": pod.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": pod.user,
            "runAsGroup": pod.user,
            "fsGroup": pod.user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "imagePullSecrets": [{"name": name} for name in pod.pull_secrets],
        "nodeSelector": pod.node_selector,
        "tolerations": list(pod.tolerations),
        "containers": [
            {
                "name": CONTAINER,
                "image": pod.image,
                "imagePullPolicy": pod.pull_policy,
                "command": ["python", "-P", "-m", "clm_core.retraining.training"],
                "args": [*task.arguments(), *silence],
                "env": [{"name": name, "value": value} for name, value in variables.items()],
                "resources": {"requests": pod.requests | gpus, "limits": pod.limits | gpus},
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "runAsNonRoot": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [*_mounts(task, pod), {"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": pod.claim}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _mounts(task: TrainingTask, pod: TrainingPodSettings) -> Iterator[dict[str, Any]]:
    features = FeaturesInUse.of(task.spec.recipe().describe())
    read_only = sorted(features.files) if features.origins else []
    written = [task.folder] if task.cache is None else [task.folder, task.cache.folder]
    if cache := _numba_cache(pod):
        written.append(Path(cache))
    parts = {path: require_on_volume(path, pod) for path in (*written, *read_only)}
    if pod.mounts == "volume":
        yield {"name": "home", "mountPath": str(pod.mount_path)}
        return
    for folder in written:
        # a missing folder would be made by the node, for root
        folder.mkdir(parents=True, exist_ok=True)
        yield {"name": "home", "mountPath": str(folder), "subPath": str(parts[folder])}
    for file in read_only:
        yield {"name": "home", "mountPath": str(file), "subPath": str(parts[file]), "readOnly": True}


def _numba_cache(pod: TrainingPodSettings) -> str | None:
    """Folder of compiled functions, if the process has such a folder on the volume."""
    folder = os.environ.get(NUMBA_CACHE)
    return folder if folder and Path(folder).is_relative_to(pod.mount_path) else None
