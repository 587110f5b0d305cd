"""Versions deleted in MLflow: their files, verified, and their registration from the files.

MLflow deletes the entries of a version, a model, a run or an experiment, and leaves the files of the version
where they lie. The files are found by the run that stored them and compared with the ledger's digests before
anything is registered.
"""

import contextlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine, NullPool, create_engine, text

from clm_core.domain.errors import BundleCorrupt, FilesLost, RegistryUnavailable
from clm_core.domain.versions import ModelVersion
from clm_core.models.bundle import read_card, verify_bundle
from clm_core.platform.bucket import Bucket
from clm_core.registry import integrity
from clm_core.registry.locations import BUCKET_FOLDER, EXPERIMENT
from clm_core.registry.mlflow_registry import (
    BARS_TAG,
    DATA_TAG,
    DIGEST_TAG,
    JOB_TAG,
    LABEL_TAG,
    PACKAGE_TAG,
    STATUS_TAG,
    MLflowRegistry,
    numbered,
    regime_tag,
)

_LOGGED_MODELS = text(
    "SELECT model_id, artifact_location FROM logged_models WHERE source_run_id = :run ORDER BY model_id"
)
_REVIVE = text(
    "UPDATE logged_models SET lifecycle_stage = 'active' WHERE model_id = :id AND lifecycle_stage = 'deleted'"
)


@dataclass(frozen=True)
class Place:
    """Location of the files of a version."""

    location: str
    """URI of the folder."""
    logged_model: str | None
    """Id of MLflow's entry of the folder, deleted or not; None without an entry."""

    @property
    def source(self) -> str:
        """Source of a version with the files."""
        return f"models:/{self.logged_model}" if self.logged_model else self.location


@dataclass(frozen=True)
class VerifiedFiles:
    """Files of a version that equal the registered files."""

    place: Place
    tags: Mapping[str, str]
    """Tags of a version with the files."""


class DeletedVersions:
    """Versions that the ledger knows and MLflow lost."""

    def __init__(self, registry: MLflowRegistry) -> None:
        self._registry = registry

    def find_files(self, version: ModelVersion) -> VerifiedFiles:
        """Files of the version, equal to the registered files.

        Raises:
            FilesLost: no folder has the files, or the files differ.
            RegistryUnavailable: MLflow does not answer.
        """
        problems = list[str]()
        for place in self._places(version.mlflow_run_id):
            try:
                return VerifiedFiles(place, self._verified_tags(version, place))
            except (BundleCorrupt, RegistryUnavailable) as error:
                problems.append(f"{place.location}: {error}")
        reasons = "; ".join(problems) or f"no folder below {self._registry.location} belongs to the version"
        raise FilesLost(
            f"{version.model_id} {version.version} cannot be registered again, and nothing was changed: its "
            f"files are missing or differ from the registered files ({reasons}). Put the artifacts back from "
            "a backup (docs/how-to/backup.md), then repeat the command; without a backup, promote another "
            "version of `clm models`, or retrain."
        )

    def revive(self, version: ModelVersion, place: Place) -> list[str]:
        """Undo deletions of experiment, run and logged model; returns a phrase for each."""
        revived = list[str]()
        client = self._registry.client
        with self._registry.requests("restore the run of a version"):
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is not None and experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
                revived.append("experiment")
            if self._run_is_deleted(version.mlflow_run_id):
                client.restore_run(version.mlflow_run_id)
                revived.append("run")
        with self._database.begin() as connection:
            if connection.execute(_REVIVE, {"id": place.logged_model}).rowcount:
                revived.append("logged model")
        return revived

    def register(self, version: ModelVersion, files: VerifiedFiles, taken: Set[int]) -> int:
        """Register a version again; returns MLflow's number, the former number where still free.

        Args:
            taken: numbers of other versions of the model in the ledger, which are never given twice.

        Raises:
            RegistryUnavailable: MLflow refused.
        """
        client = self._registry.client
        model_id = version.model_id
        with self._registry.requests(f"register {model_id} {version.version} again"):
            self._registry.ensure_model(model_id)
            unfinished = self._from_interrupted(version, files)
            for number in unfinished & taken:
                client.delete_model_version(model_id, str(number))
            if free := unfinished - taken:
                return min(free)
            created = numbered(
                client,
                model_id,
                files.place.source,
                version.mlflow_run_id,
                files.tags,
                # a greater number than the former means that MLflow's count has passed the former
                lambda number: number >= version.mlflow_version and number not in taken,
            )
        return int(created.version)

    def put_back_tags(self, version: ModelVersion, number: int, files: VerifiedFiles) -> list[str]:
        """Set missing and changed tags; returns the names."""
        client = self._registry.client
        model_id = version.model_id
        with self._registry.requests(f"tag {model_id} {number}"):
            present = client.get_model_version(model_id, str(number)).tags
            differing = [name for name, value in files.tags.items() if present.get(name) != value]
            for name in differing:
                client.set_model_version_tag(model_id, str(number), name, files.tags[name])
        return differing

    @cached_property
    def _database(self) -> Engine:
        return create_engine(self._registry.uri, poolclass=NullPool)

    def _places(self, run_id: str) -> list[Place]:
        """Folders with the files of a run: of MLflow's entries first, then of disk or bucket."""
        with self._database.begin() as connection:
            entries = connection.execute(_LOGGED_MODELS, {"run": run_id}).tuples().all()
        places = [Place(location, logged_model) for logged_model, location in entries]
        known = {place.location for place in places}
        stored = (Place(location, None) for location in self._stored(run_id))
        return [*places, *(place for place in stored if place.location not in known)]

    def _stored(self, run_id: str) -> Iterator[str]:
        """Locations of the logged models of a run, by the files alone."""
        bucket = self._registry.bucket
        if bucket is None:
            return (folder.as_uri() for folder in _folders(self._registry.artifacts, run_id))
        return _locations(bucket, run_id)

    def _verified_tags(self, version: ModelVersion, place: Place) -> dict[str, str]:
        with self._registry.package(place.location) as package:
            listed = integrity.listing(package)
            if version.package_digest not in (None, integrity.digest(listed)):
                raise BundleCorrupt("a file beside the bundle differs from the registered file")
            verify_bundle(package / integrity.BUNDLE, version.bundle_digest)
            bars_needed = read_card(package / integrity.BUNDLE).bars_needed
        return {
            LABEL_TAG: version.version,
            STATUS_TAG: version.status.value,
            JOB_TAG: str(version.training_job_id),
            DIGEST_TAG: version.bundle_digest,
            PACKAGE_TAG: listed,
            DATA_TAG: version.data_hash,
            BARS_TAG: str(bars_needed or ""),
            **regime_tag(version.params, version.plugin),
        }

    def _run_is_deleted(self, run_id: str) -> bool:
        """False also for a run that was erased for good, which nothing brings back."""
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):
            return bool(self._registry.client.get_run(run_id).info.lifecycle_stage == "deleted")
        return False

    def _from_interrupted(self, version: ModelVersion, files: VerifiedFiles) -> set[int]:
        """Numbers given by an interrupted restoration that did not reach the ledger."""
        of_run = f"name = '{version.model_id}' AND run_id = '{version.mlflow_run_id}'"
        versions = self._registry.client.search_model_versions(of_run)
        return {int(each.version) for each in versions if each.source == files.place.source}


def _folders(artifacts: Path, run_id: str) -> Iterator[Path]:
    """Folders of logged models whose `MLmodel` names the run."""
    for description in sorted(artifacts.glob("models/*/artifacts/MLmodel")):
        if _names(description.read_bytes(), run_id):
            yield description.parent


def _locations(bucket: Bucket, run_id: str) -> Iterator[str]:
    """As `_folders`, for a bucket."""
    models = f"{BUCKET_FOLDER}/models/"
    for model in bucket.folders(models):
        folder = f"{models}{model}/artifacts"
        description = bucket.get(f"{folder}/MLmodel")
        if description is not None and _names(description.content, run_id):
            yield bucket.address(folder)


def _names(description: bytes, run_id: str) -> bool:
    return f"run_id: {run_id}" in description.decode("utf-8", errors="replace").splitlines()
