"""What comes out of training: versions of a model."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.jobs import TrainingJob
from clm_core.domain.kinds import OfKind, PluginName
from clm_core.domain.vocabulary import ModelStatus, ModelType


class ModelVersion(OfKind):
    """One trained, stored and judged model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    """Label of the UTC second it was registered, `v20251204_143022`; also its alias in MLflow."""
    model_type: ModelType
    plugin: PluginName | None = None
    """Name of the plug-in; None unless the type is OTHER."""
    symbol: str
    timeframe: str
    status: ModelStatus
    training_job_id: UUID
    parent_version: str | None = None
    """The version that served when this one was trained; None for the first."""
    model_path: str
    """MLflow URI of the bundle: `models:/xgboost_btcusdt_1h@v20251204_143022`."""
    mlflow_version: int
    """MLflow's own running number of the version."""
    mlflow_run_id: str
    bundle_digest: str
    """SHA-256 of the bundle's manifest, hexadecimal."""
    package_digest: str | None = None
    """SHA-256 over everything MLflow holds beside the bundle; None: an earlier release registered it."""
    data_hash: str
    """Content hash of the bars it was trained on, hexadecimal."""
    code_version: str
    """Release of this software, with the git commit where there is one."""
    seed: int
    params: dict[str, Any] = Field(default_factory=dict)
    """Every training parameter with its effective value; none: an earlier release registered it."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of Python and of the libraries it was trained with, by name; none: an earlier release."""
    train_metrics: dict[str, float] = Field(default_factory=dict)
    validation_metrics: dict[str, float] = Field(default_factory=dict)
    created_at: datetime


class Lineage(BaseModel):
    """All that a version was made of: enough to make it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    parent_version: str | None
    """The version that served when this one was trained."""
    job: TrainingJob
    """Who asked for it, why, and for what."""
    data_hash: str
    """Of the very bars it was trained on."""
    data_snapshot: str
    """Of the whole series as it stood then; the bars can be read back by it."""
    code_version: str
    params: dict[str, Any]
    """Every training parameter with its effective value; none: see the version's run in MLflow."""
    seed: int
    environment: dict[str, str]
    """Versions of Python and of the libraries; none: see the card in the version's bundle."""
    mlflow_run_id: str
    bundle_digest: str

    @classmethod
    def of(cls, version: ModelVersion, job: TrainingJob) -> "Lineage":
        own = version.model_dump(include=cls.model_fields.keys() & ModelVersion.model_fields.keys())
        return cls(**own, job=job, data_snapshot=job.data_snapshot)


def version_label(moment: datetime) -> str:
    """`v20251204_143022` for 2025-12-04 14:30:22 UTC."""
    return moment.astimezone(UTC).strftime("v%Y%m%d_%H%M%S")
