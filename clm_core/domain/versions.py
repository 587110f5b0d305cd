"""Versions of models: the results of training."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.jobs import TrainingJob
from clm_core.domain.kinds import OfKind, PluginName
from clm_core.domain.measures import percent
from clm_core.domain.recipes import regime_of
from clm_core.domain.vocabulary import ModelStatus, ModelType


class ModelVersion(OfKind):
    """A trained and stored model, and everything needed to train the version again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    """Label made from the UTC second of registration, `v20251204_143022`; also an alias in MLflow."""
    model_type: ModelType
    plugin: PluginName | None = None
    """Name of the plug-in; None unless the type is OTHER."""
    symbol: str
    timeframe: str
    status: ModelStatus
    training_job_id: UUID
    parent_version: str | None = None
    """Production version at the time of the training; None for the first version."""
    model_path: str
    """MLflow URI of the bundle: `models:/xgboost_btcusdt_1h@v20251204_143022`."""
    mlflow_version: int
    """Number of the version in MLflow."""
    mlflow_run_id: str
    bundle_digest: str
    """SHA-256 of the bundle's manifest, hexadecimal."""
    package_digest: str | None = None
    """SHA-256 over all files beside the bundle in MLflow; None: registered by an earlier release."""
    data_hash: str
    """Content hash of the training bars, hexadecimal."""
    code_version: str
    """Release of this software, with the git commit if available."""
    recipe_digest: str | None = None
    """SHA-256 of the `RecipeIdentity`, hexadecimal: a later version with the same digest is a refresh, with
    another a replacement; None: registered by an earlier release."""
    seed: int
    params: dict[str, Any] = Field(default_factory=dict)
    """Every training parameter with the effective value; empty: registered by an earlier release."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of Python and of the libraries at the training, by name; empty: an earlier release."""
    train_metrics: dict[str, float] = Field(default_factory=dict)
    validation_metrics: dict[str, float] = Field(default_factory=dict)
    """Metrics on out-of-sample bars, by the names of `explain.validation`; empty until the version is
    judged, and for a version of an earlier release."""
    created_at: datetime

    @property
    def regime(self) -> str | None:
        """Regime that the training was weighted towards; None for equal weights."""
        return regime_of(self.params, self.plugin)


def regime_sentence(version: ModelVersion) -> str:
    """`the regime turbulent: 38% of the rows fitted, with 71% of the weight`."""
    sentence = f"the regime {version.regime}"
    metrics = version.train_metrics
    if "regime_rows" not in metrics:
        return sentence
    rows = percent(metrics["regime_rows"] / metrics["fit_rows"])
    weight = percent(metrics["regime_share_of_weight"])
    return f"{sentence}: {rows} of the rows fitted, with {weight} of the weight"


class Lineage(BaseModel):
    """Inputs of a version's training: enough to train the version again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    parent_version: str | None
    """Production version at the time of the training."""
    job: TrainingJob
    """The training job with the requester and the reason."""
    data_hash: str
    """Content hash of the training bars."""
    data_snapshot: str
    """Content hash of the whole series at the time; the market data read the bars back by hash."""
    code_version: str
    params: dict[str, Any]
    """Every training parameter with the effective value; empty: see the version's run in MLflow."""
    seed: int
    environment: dict[str, str]
    """Versions of Python and of the libraries; empty: see the card in the version's bundle."""
    mlflow_run_id: str
    bundle_digest: str

    @classmethod
    def of(cls, version: ModelVersion, job: TrainingJob) -> "Lineage":
        own = version.model_dump(include=cls.model_fields.keys() & ModelVersion.model_fields.keys())
        return cls(**own, job=job, data_snapshot=job.data_snapshot)


def version_label(moment: datetime) -> str:
    """`v20251204_143022` for 2025-12-04 14:30:22 UTC."""
    return moment.astimezone(UTC).strftime("v%Y%m%d_%H%M%S")
