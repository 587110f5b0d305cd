"""Settings of a training, `[training]`: place, limits, pod in Kubernetes."""

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainingPlace(StrEnum):
    INLINE = "inline"
    """In the process of the run, for a debugger: no time limit."""
    SUBPROCESS = "subprocess"
    """In a process of its own on the machine of the run."""
    KUBERNETES = "kubernetes"
    """In the pod of a Kubernetes Job."""


class TrainingPodSettings(BaseModel):
    """Pod of a training in Kubernetes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str | None = Field(default=None, min_length=1)
    """Image with this release of CLM and the libraries and plug-ins of the models."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy of the image."""
    pull_secrets: tuple[str, ...] = ()
    """Names of the Secrets for the registry of the image."""
    namespace: str | None = Field(default=None, min_length=1)
    """Namespace of the Jobs; by default the namespace of the pod of the run, or of the kubeconfig."""
    claim: str | None = Field(default=None, min_length=1)
    """Volume claim with the home, mounted by the run and by the pod of the training."""
    mount_path: Path = Path("/var/lib/clm")
    """Folder at which the process of the run has the volume of the claim; the home lies below."""
    mounts: Literal["folders", "volume"] = "folders"
    """`folders` shows the pod the folder of the training and the models of past folds alone; `volume` shows
    the whole volume, for file servers without access for root (root_squash)."""
    requests: dict[str, str] = {"cpu": "1", "memory": "2Gi"}
    """Resources reserved for the pod by a node."""
    limits: dict[str, str] = {"cpu": "4", "memory": "8Gi"}
    """Maximum resources of the pod; beyond the memory the training fails as OOMKilled."""
    gpus: int = Field(default=0, ge=0)
    """Number of GPUs."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the resource of a GPU in the cluster."""
    node_selector: dict[str, str] = {}
    """Labels required of a node."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Tolerations of taints of nodes, as in a pod."""
    labels: dict[str, str] = {}
    """Labels of Job and pod, for policies of the network."""
    service_account: str = "default"
    """Service account of the pod, without a token."""
    user: int = Field(default=10_001, ge=1)
    """User and group of the pod: the owner of the home."""
    start_seconds: float = Field(default=600.0, gt=0)
    """Longest wait for a node and the image, seconds; `training.limit_seconds` counts from the start."""
    keep_seconds: int = Field(default=3_600, ge=0)
    """Time between the end of a Job and the deletion of Job and log, seconds."""


class TrainingSettings(BaseModel):
    """Place and limits of a training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: TrainingPlace = TrainingPlace.SUBPROCESS
    """`subprocess` and `kubernetes` end a training at the time limit and with the run; `inline` trains in the
    process of the run."""
    limit_seconds: float = Field(default=21_600.0, gt=0)
    """Time limit of a training outside of the run's process, seconds."""
    alert_after_seconds: float = Field(default=7_200.0, gt=0)
    """Time in progress from which on a job is alerted, seconds."""
    fold_cache_mib: int = Field(default=512, ge=0)
    """Maximum size of the models of past folds in the home, MiB; 0 keeps none, and every retrain fits all
    folds again."""
    kubernetes: TrainingPodSettings = TrainingPodSettings()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [name for name in ("image", "claim") if getattr(self.kubernetes, name) is None]
        if self.where is TrainingPlace.KUBERNETES and missing:
            names = " and ".join(f"training.kubernetes.{name}" for name in missing)
            raise ValueError(f'where = "kubernetes" needs {names}')
        return self
