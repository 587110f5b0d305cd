"""Settings of operation: alerts, maintenance, servers, work pool, source of the policy."""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from clm_core.domain.secret_references import Referable
from clm_core.domain.webhook_settings import of_http


def _with_scheme(url: SecretStr, _: Mapping[str, Any]) -> None:
    if not re.match(r"[a-z][a-z0-9+.-]*://.", url.get_secret_value()):
        raise ValueError("must look like slack://... or json://host/path")


class FeatureSettings(BaseModel):
    """Own features of models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[Path, ...] = ()
    """Python files with own features; their code runs with the rights of CLM: `["my_features.py"]`."""


class AlertSettings(BaseModel):
    """Receivers of alerts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: tuple[Annotated[SecretStr, Referable(_with_scheme)], ...] = ()
    """Receivers of alerts as apprise URLs: `slack://...`, `pagerduty://...`, `json://host/path`."""
    heartbeat_url: Annotated[SecretStr, Referable(of_http)] | None = None
    """Address at a monitor outside of the machine: a GET request follows each maintenance that succeeded, and
    the monitor raises the alarm when the requests cease."""


class OnExpiry(StrEnum):
    ASK = "ask"
    """Alert an admin, who confirms or replaces the version; production stays unchanged meanwhile."""
    ROLL_BACK = "roll_back"
    """Roll back to the version before."""


class GuardSettings(BaseModel):
    """Forced promotions after their time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_expiry: OnExpiry = OnExpiry.ASK
    """Action taken when a forced promotion expires."""


class MaintenanceSettings(BaseModel):
    """Scheduled maintenance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verify_minutes: float = Field(default=60.0, ge=0, le=10_080)
    """Minutes between full reads of production files by scheduled maintenance; 0 reads at every pass."""
    keep_runs_days: float = Field(default=1.0, ge=0.1, le=3650)
    """Days after which completed runs of scheduled passes are deleted in Prefect; failed runs are kept for 30
    days at least."""


class LogSettings(BaseModel):
    """Log lines of servers, workers and flow runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["text", "json"] = "text"
    """json: one object a line, with the ids of the run, job and model."""


Port = Annotated[int, Field(ge=1024, le=65535)]


class StackSettings(BaseModel):
    """Servers and worker started by `clm up`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefect_port: Port | None = None
    """Port of the Prefect server; by default 4200 or the next free port, kept from then on."""
    mlflow_port: Port | None = None
    """Port of the MLflow server; by default 5000 or the next free port."""
    api_port: Port | None = None
    """Port of the REST API; by default 8000 or the next free port."""
    concurrent_runs: int = Field(default=2, ge=1)
    """Maximum number of flow runs of the worker at a time."""


class DeploySettings(BaseModel):
    """Work pool of the deployed flows: process, docker and kubernetes differ in these settings alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    work_pool: str = "clm"
    """Name of the Prefect work pool; `clm deploy` creates a missing pool."""
    work_pool_type: str = "process"
    """`process`, `docker` or `kubernetes`."""
    job_variables: dict[str, Any] = {}
    """Job variables of every run: image, resources, environment."""


class PolicySource(BaseModel):
    """Source of the gate's limits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = None
    """Policy document (TOML); by default the document included in the package."""
    preset: str | None = None
    """Preset overriding the document's choice: "strict", "thresholds-only" or a preset of the document."""
    store: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    """Policy store whose limits replace the five criteria, as `package.module:name`: an object with
    `get(key, default)`, or a function without arguments that returns such an object."""
