"""Versions, artifacts and metrics in MLflow."""

import contextlib
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from clm_core.domain import verdict_text
from clm_core.domain.errors import (
    AlreadyExists,
    BundleCorrupt,
    HomeMismatch,
    MissingExtra,
    NotFound,
    RegistryUnavailable,
    StorageUnavailable,
)
from clm_core.domain.evaluations import Verdict
from clm_core.domain.execution import FIXED_UNITS
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.recipes import regime_of
from clm_core.domain.storage_settings import IN_THE_HOME, StorageSettings
from clm_core.domain.vocabulary import ModelStatus
from clm_core.platform.bucket import Bucket
from clm_core.platform.home_record import HomeRecord
from clm_core.registry import integrity, run_rows
from clm_core.registry.locations import BUCKET_FOLDER, EXPERIMENT, HOME_TAG, is_inside
from clm_core.registry.store_tables import (
    aliases_of,
    artifacts_of,
    creating_tables,
    experiment_named,
    finish_logged_model,
    finish_run,
    is_database,
    is_registered,
    jobs_left_open,
    location_behind,
    note_creator,
    number_behind,
    run_and_tag,
    show_status,
    tags_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, LoggedModel, Metric, Param, RunInfo
    from mlflow.entities.model_registry import ModelVersion as MLflowVersion
    from mlflow.entities.model_registry import RegisteredModel
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.store.entities.paged_list import PagedList

    from clm_core.market.bars import Bars, Floats
    from clm_core.market.panel import Panel
    from clm_core.models.contract import Model, ModelCard

T = TypeVar("T")
_one_upload = threading.Lock()
"""One upload at a time in this process: MLflow keeps the model that is being logged in a global variable."""
SERVING_CODE = Path(__file__).parent / "serving.py"
BUNDLE = "bundle"
"""Name of a bundle's folder, at the registration and in MLflow."""
DIGEST_TAG = "clm.bundle_digest"
JOB_TAG = "clm.job_id"
STATUS_TAG = "clm.status"
LABEL_TAG = "clm.version"
DATA_TAG = "clm.data_hash"
CREATOR_TAG = "clm.requested_by"
"""Tag with the person or part that asked for the training."""
USER_TAG = "mlflow.user"
"""MLflow's own tag for the user of a run."""
REGIME_TAG = "clm.regime"
RUNNING = "attributes.status = 'RUNNING'"
BARS_TAG = "clm.bars_needed"
"""Tag with the number of closed bars that a prediction needs; see `Model.bars_needed`."""
PAGE = 1000
"""Maximum number of items that a search in MLflow answers with."""
PACKAGE_TAG = "clm.package"
"""Tag with the SHA-256 of every file beside the bundle; see `integrity`."""
MAX_FILES = 1000
"""Maximum number of files of a version."""
MAX_DEPTH = 8
"""Maximum depth of nested folders in a version."""
CURVE_POINTS = 250
"""Points logged of a curve: enough for a chart in the MLflow UI, and a row of the database each."""


@dataclass(frozen=True)
class Registered:
    """Identity of a version registered in MLflow."""

    label: str
    mlflow_version: int
    run_id: str
    uri: str
    """`models:/<model_id>@<label>`, the URI for traders."""
    package_digest: str
    """Digest of the listing of the files beside the bundle, for the ledger; see `integrity`."""


class MLflowRegistry:
    """MLflow registry behind a tracking URI: a server, or the database directly."""

    def __init__(
        self,
        tracking_uri: str,
        artifacts: Path | None = None,
        fault: Fault | None = None,
        max_bytes: int = 256 * 2**20,
        home_id: str | None = None,
        storage: StorageSettings = IN_THE_HOME,
    ) -> None:
        """
        Args:
            artifacts: folder of the artifacts in the home; every version is stored below the folder, unless
                the storage has a bucket. None for a trader, who reads versions and stores none.
            max_bytes: maximum size of a version fetched from MLflow.
            home_id: id of the home by its record, which must exist at every registration; None without a
                home.
            storage: bucket with the artifacts, if any.
        """
        self._uri = tracking_uri
        self._bucket = None if storage.url is None else Bucket(storage)
        self._storage_url = storage.url
        self._folder = artifacts
        self._fault = fault
        self._max_bytes = max_bytes
        self._home_id = home_id

    @property
    def _artifacts(self) -> Path:
        """Folder of the artifacts.

        Raises:
            HomeMismatch: the registry has none.
        """
        if self._folder is None:
            raise HomeMismatch(
                "This registry reads versions and stores none: open a home by open_services() to store one."
            )
        return self._folder

    @property
    def _location(self) -> str:
        if self._storage_url is None:
            return self._artifacts.as_uri()
        return f"{self._storage_url}/{BUCKET_FOLDER}"

    @cached_property
    def _mlflow(self) -> ModuleType:
        """The mlflow module, imported and connected at the first use, since the import is slow."""
        # read by MLflow whenever a model is loaded; CLM stores no pickle, so none may be loaded
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # a bundle is a handful of small files, and MLflow's progress bars would disturb those of the CLI
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        # an error after seconds instead of 20 minutes, since the caller may hold a model's lock
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        import mlflow

        # MLflow's own code, when a version is stored with an example
        warnings.filterwarnings("ignore", message="Operation with range is deprecated")
        # INFO lines about migrations and aliases mean nothing to a user
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        # hints about the signature, which has columns of any type on purpose
        logging.getLogger("mlflow.pyfunc").setLevel(logging.ERROR)
        if self._bucket is not None:
            from clm_core.registry import bucket_artifacts

            bucket_artifacts.use(self._bucket)
        return mlflow

    @property
    def _fluent(self) -> ModuleType:
        """MLflow's fluent functions, set to our store; another open home may have changed the setting."""
        self._mlflow.set_tracking_uri(self._uri)
        self._mlflow.set_registry_uri(self._uri)
        # creates the tables, before the fluent functions would
        assert self._client
        return self._mlflow

    @property
    def uri(self) -> str:
        """Tracking URI."""
        return self._uri

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts in the home."""
        return self._artifacts

    @property
    def location(self) -> str:
        """Location of the artifacts: of the folder, or of the bucket."""
        return self._location

    @property
    def bucket(self) -> Bucket | None:
        """Bucket with the artifacts, if any."""
        return self._bucket

    @property
    def client(self) -> "MlflowClient":
        """MLflow's client of our store, with the fluent functions set to the store as well."""
        assert self._fluent
        return self._client

    def create_tables(self) -> None:
        """Create the tables of MLflow's database at once, which else the first use does."""
        assert self._client

    @cached_property
    def _client(self) -> "MlflowClient":
        assert self._mlflow
        from clm_core.registry.model_client import ModelClient

        with creating_tables(self._uri):
            return ModelClient(self._uri, self._uri)

    def connect(self) -> None:
        """Import MLflow and migrate the store now instead of at the first use; takes seconds once.

        Raises:
            HomeMismatch: versions would be stored outside the home in force.
        """
        self._experiment_at_home()

    def require_reachable(self) -> None:
        """Ping MLflow's store.

        Raises:
            RegistryUnavailable: MLflow does not answer.
        """
        with _mlflow_request("answer a ping"):
            self._client.search_registered_models(max_results=1)

    def register(
        self,
        job: TrainingJob,
        bundle: Path,
        bundle_digest: str,
        bars: "Bars | Panel",
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        label: str,
        above: int = 0,
        learning_curve: Sequence[float] = (),
    ) -> Registered:
        """Store a trained bundle as a new version of its model, with parameters and data.

        The version has its label as an alias from the start.

        Args:
            label: reserved for the version.
            learning_curve: validation loss of each step of the training.
            above: greatest number in the ledger: after the deletion of a model MLflow counts from 1 again,
                and one number must not stand for two versions.

        Raises:
            AlreadyExists: another version took the label during the upload, or a prompt in MLflow has the
                name of the model.
            RegistryUnavailable: MLflow does not answer or has no space; run and version are marked failed.
            HomeMismatch: the version would be stored outside the home in force.
        """
        from mlflow.entities import Param

        from clm_core.models.bundle import read_card

        card = read_card(bundle)
        of_training = {"seed": job.seed, "dataset_span_days": job.dataset_span_days, **params}
        of_model = _model_config(card, bundle_digest, bars)
        with _mlflow_request(f"store a version of {job.model_id}"), _one_upload:
            self.ensure_model(job.model_id, _about(job))
            with self._run(job, label) as run:
                run_id = run.run_id
                with self._logged_model(job.model_id, run) as model:
                    self._log_training(
                        run_id,
                        _training_metrics(run_id, model.model_id, metrics, learning_curve),
                        [Param(name, str(value)) for name, value in {**of_model, **of_training}.items()],
                        run_rows.RunOrigin(
                            _dataset(bars),
                            model.model_id,
                            [Param(name, str(value)) for name, value in of_training.items()],
                        ),
                    )
                    self._store(model, run_id, bundle, card, of_model, bars)
                crash_at(Fault.BUNDLE_STORED, self._fault)
                with self.package(model.artifact_location, in_place=True) as package:
                    listed = integrity.listing(package)
                version = self._create_version(
                    job, label, model.model_uri, run_id, bundle_digest, listed, bars, card.bars_needed, above
                )
        uri = f"models:/{job.model_id}@{label}"
        return Registered(label, version, run_id, uri, integrity.digest(listed))

    def labels(self, model_id: str) -> set[str]:
        """All aliases of a model: the labels of the versions, and the aliases that can be moved."""
        return set(self.aliases(model_id))

    def log_results(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        curves: "Mapping[str, Sequence[float] | Floats]",
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Add metrics, curves (a value a step) and tags to a version's run, without values that are not
        finite."""
        from mlflow.entities import Metric, RunTag

        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        batch = [*(Metric(name, value, 0, 0) for name, value in finite.items()), *_points(curves)]
        with _mlflow_request(f"store the figures of run {run_id}"):
            named = [RunTag(*tag) for tag in tags.items()]
            if not (is_database(self._uri) and run_rows.write_batch(self._uri, run_id, batch, (), named)):
                self._client.log_batch(run_id, batch, (), named)

    def _log_training(
        self,
        run_id: str,
        metrics: "list[Metric]",
        params: "Sequence[Param]",
        origin: run_rows.RunOrigin,
    ) -> None:
        """Log figures and origin of a run; directly in the tables where MLflow is a database."""
        from mlflow.entities import LoggedModelOutput

        if is_database(self._uri) and run_rows.write_batch(
            self._uri, run_id, metrics, params, tags=(), origin=origin
        ):
            return
        self._client.log_batch(run_id, metrics, params)
        self._client.log_model_params(origin.model_id, {each.key: each.value for each in origin.params})
        self._client.log_inputs(run_id, [origin.data])
        self._client.log_outputs(run_id, [LoggedModelOutput(origin.model_id, step=0)])

    def attach(self, run_id: str, files: Sequence[Path], folder: str) -> None:
        """Store files with the version's run, shown by the MLflow UI.

        In a folder on the same disk the files given and the files stored share their content.
        """
        with _mlflow_request(f"store the {folder} of run {run_id}"):
            store = self._store_of(self._artifacts_of(run_id))
            for file in files:
                store.log_artifact(str(file), folder)  # type: ignore[no-untyped-call]
                if self._bucket is None:
                    _share_content(self._artifacts / run_id / "artifacts" / folder / file.name, file)

    def set_status(
        self,
        model_id: str,
        mlflow_version: int,
        status: ModelStatus,
        sentence: str,
        at: datetime,
        verdict: Verdict | None = None,
    ) -> None:
        """Show a status to people reading the MLflow UI; the ledger stays the truth.

        Args:
            sentence: reason of the status, for the history in the description.
            at: time of the change.
            verdict: verdict for a version without a description; None leaves the description in place.
        """
        number = str(mlflow_version)
        with _mlflow_request(f"show the status of {model_id} {number}"):
            if verdict is not None:
                present = verdict_text.description(verdict)
            else:
                present = self._client.get_model_version(model_id, number).description or ""
            description = verdict_text.with_status(present, status.value, sentence, at)
            if is_database(self._uri) and show_status(
                self._uri,
                model_id,
                mlflow_version,
                tag=STATUS_TAG,
                status=status.value,
                description=description,
            ):
                return
            self._client.set_model_version_tag(model_id, number, STATUS_TAG, status.value)
            self._client.update_model_version(model_id, number, description=description)

    def show_creator(self, model_id: str, mlflow_version: int, creator: str) -> None:
        """Show the person or part that asked for the training, for a version registered again."""
        with _mlflow_request(f"note the creator of {model_id} {mlflow_version}"):
            self._client.set_model_version_tag(model_id, str(mlflow_version), CREATOR_TAG, creator)
        self._note_creator(model_id, mlflow_version, creator)

    def _note_creator(self, model_id: str, mlflow_version: int, creator: str) -> None:
        if is_database(self._uri):
            note_creator(self._uri, model_id, mlflow_version, creator)

    def abandon(self, job_id: UUID, reason: str, at: datetime) -> None:
        """Close the remains of a failed job: open run, partly stored model, unusable version."""
        of_job = f"tags.`{JOB_TAG}` = '{job_id}'"
        with _mlflow_request(f"close the open run and versions of job {job_id}"):
            experiment = str(self._experiment().experiment_id)
            for run in self._client.search_runs([experiment], f"{of_job} AND {RUNNING}"):
                run_id = run.info.run_id
                for model in self._client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
                    if model.status == "PENDING":
                        self._client.finalize_logged_model(model.model_id, "FAILED")
                self._client.set_terminated(run_id, "FAILED")
            for version in self._client.search_model_versions(of_job):
                if version.tags[STATUS_TAG] != ModelStatus.FAILED:
                    self.set_status(version.name, int(version.version), ModelStatus.FAILED, reason, at)

    def left_open(self) -> set[UUID]:
        """Jobs with an open run or an unjudged version in MLflow."""
        if is_database(self._uri):
            return jobs_left_open(
                self._uri,
                experiment=EXPERIMENT,
                job_tag=JOB_TAG,
                status_tag=STATUS_TAG,
                unjudged=ModelStatus.TRAINING,
            )
        unjudged = f"tags.`{STATUS_TAG}` = '{ModelStatus.TRAINING}'"
        with _mlflow_request("list open runs and versions"):
            runs = self._client.search_runs([str(self._experiment().experiment_id)], RUNNING)
            versions = self._client.search_model_versions(unjudged)
        all_tags = [run.data.tags for run in runs] + [version.tags for version in versions]
        return {UUID(tags[JOB_TAG]) for tags in all_tags if JOB_TAG in tags}

    def download(self, run_id: str, path: str, into: Path) -> Path:
        """A local copy of a stored artifact.

        Raises:
            NotFound: MLflow has no such file, or no such run.
        """
        from mlflow.exceptions import MlflowException

        try:
            return Path(self._client.download_artifacts(run_id, path, str(into)))
        except (MlflowException, OSError) as error:
            raise NotFound(f"MLflow has no {path} for run {run_id}: {error}") from error

    def load(self, uri: str, bundle_digest: str) -> "Model":
        """The stored model; the bundle is verified against the digest before any parsing."""
        from clm_core.models.bundle import load_bundle

        with self.fetched(uri) as bundle:
            return load_bundle(bundle, bundle_digest)

    def verify(
        self, model_id: str, mlflow_version: int, bundle_digest: str, package_digest: str | None
    ) -> None:
        """Compare every file of the version in MLflow with the registered version.

        Raises:
            BundleCorrupt: a file differs.
            RegistryUnavailable: a file cannot be read.
        """
        from clm_core.models.bundle import verify_bundle

        with (
            _mlflow_request(f"read the files of {model_id} {mlflow_version}"),
            self.verified(model_id, mlflow_version, package_digest, in_place=True) as bundle,
        ):
            verify_bundle(bundle, bundle_digest)

    def verify_listing(self, model_id: str, mlflow_version: int, package_digest: str | None) -> None:
        """Part of `verify` without file access: MLflow has the version and its listing.

        Raises:
            BundleCorrupt: the listing was changed.
            RegistryUnavailable: the listing cannot be read.
        """
        listed = self._tags(model_id, mlflow_version).get(PACKAGE_TAG)
        integrity.verify_listing(listed, package_digest)

    @contextlib.contextmanager
    def verified(
        self, model_id: str, mlflow_version: int, package_digest: str | None, *, in_place: bool = False
    ) -> Iterator[Path]:
        """A private, unverified copy of a version's bundle, after verification of the files beside it.

        Args:
            package_digest: digest in the ledger, or None to rely on MLflow's own tag.
            in_place: as of `package`.

        Raises:
            BundleCorrupt: a file beside the bundle differs, or the version is too large to fetch.
            RegistryUnavailable: the version cannot be read.
        """
        listed = self._tags(model_id, mlflow_version).get(PACKAGE_TAG)
        with self.package(f"models:/{model_id}/{mlflow_version}", in_place=in_place) as package:
            integrity.verify_package(package, listed, package_digest)
            yield package / integrity.BUNDLE

    @contextlib.contextmanager
    def fetched(self, uri: str) -> Iterator[Path]:
        """A private, unverified copy of a version's bundle; no other file of MLflow is read.

        Raises:
            RegistryUnavailable: MLflow has no such version, or its files are gone or unreadable.
        """
        with self.package(uri, integrity.BUNDLE.as_posix()) as bundle:
            yield bundle

    def tagged_digest(self, model_id: str, mlflow_version: int) -> str:
        """Digest of the bundle in MLflow's tag, which anybody with write access may have changed.

        Raises:
            NotFound: the version was not registered by CLM.
        """
        tags = self._tags(model_id, mlflow_version)
        if DIGEST_TAG not in tags:
            raise NotFound(
                f"Version {mlflow_version} of {model_id} in MLflow was not registered by CLM: "
                "promote a registered version."
            )
        digest: str = tags[DIGEST_TAG]
        return digest

    def tagged_status(self, model_id: str, mlflow_version: int) -> ModelStatus:
        """Status in MLflow, which follows the status in the ledger with a short delay."""
        return ModelStatus(self._tags(model_id, mlflow_version)[STATUS_TAG])

    def tagged_bars_needed(self, model_id: str, mlflow_version: int) -> int | None:
        """Number of closed bars that a prediction needs; None for a version of release 0.1.0."""
        if is_database(self._uri):
            run_and_value = run_and_tag(self._uri, model_id, mlflow_version, BARS_TAG)
            number = None if run_and_value is None else run_and_value[1]
        else:
            number = self._tags(model_id, mlflow_version).get(BARS_TAG)
        return int(number) if number else None

    def aliased(self, model_id: str, alias: str) -> int | None:
        """MLflow's number of the version behind an alias; None without such an alias or model."""
        if is_database(self._uri):
            return number_behind(self._uri, model_id, alias)
        with _mlflow_request(f"read the alias {alias} of {model_id}"):
            version = _none_on(
                {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"},
                lambda: self._client.get_model_version_by_alias(model_id, alias),
            )
        return None if version is None else int(version.version)

    def aliased_by_model(self, alias: str) -> dict[str, int]:
        """MLflow's number of the version behind an alias, of all models that have it, in few requests."""
        with _mlflow_request(f"list the aliases {alias}"):
            models = _all_pages(partial(self._client.search_registered_models, max_results=PAGE))
            return {each.name: int(each.aliases[alias]) for each in models if alias in each.aliases}

    def listings(self, status: ModelStatus) -> dict[tuple[str, int], str | None]:
        """Listing of the files of each version with a status, by model and MLflow's number, in few requests.

        The status is MLflow's tag, which follows the ledger with a short delay.
        """
        condition = f"tags.`{STATUS_TAG}` = '{status}'"
        with _mlflow_request(f"list the versions with status {status}"):
            search = partial(self._client.search_model_versions, condition, max_results=PAGE)
            return {(each.name, int(each.version)): each.tags.get(PACKAGE_TAG) for each in _all_pages(search)}

    def point(self, model_id: str, alias: str, mlflow_version: int | None) -> None:
        """Set an alias to a version; None removes the alias."""
        with _mlflow_request(f"point the alias {alias} of {model_id} at {mlflow_version}"):
            if mlflow_version is None:
                self._client.delete_registered_model_alias(model_id, alias)
            else:
                self._client.set_registered_model_alias(model_id, alias, str(mlflow_version))

    def holds(self, model_id: str, mlflow_version: int, run_id: str) -> bool:
        """True unless the version was deleted.

        Args:
            run_id: run of the version, since MLflow gives the numbers of a deleted model a second time.
        """
        if is_database(self._uri):
            run_and_value = run_and_tag(self._uri, model_id, mlflow_version, BARS_TAG)
            return run_and_value is not None and run_and_value[0] == run_id
        with _mlflow_request(f"read {model_id} {mlflow_version}"):
            version = _none_on(
                {"RESOURCE_DOES_NOT_EXIST"},
                lambda: self._client.get_model_version(model_id, str(mlflow_version)),
            )
        return version is not None and version.run_id == run_id

    @contextlib.contextmanager
    def requests(self, action: str) -> Iterator[None]:
        """Raise RegistryUnavailable, naming the action, where a request of the block to MLflow fails."""
        with _mlflow_request(action):
            yield

    def aliases(self, model_id: str) -> dict[str, int]:
        """MLflow's number of the version behind each alias; empty without such a model."""
        if is_database(self._uri):
            return aliases_of(self._uri, model_id)
        with _mlflow_request(f"read the aliases of {model_id}"):
            model = self._model(model_id)
        return {} if model is None else {alias: int(number) for alias, number in model.aliases.items()}

    @contextlib.contextmanager
    def package(self, uri: str, part: str = "", *, in_place: bool = False) -> Iterator[Path]:
        """A private copy of everything MLflow holds of a version, or of a folder of the version.

        Args:
            part: folder to copy, of the version; empty: all.
            in_place: True for the stored files on a local disk, to be read only; no copy is made of them.

        Raises:
            BundleCorrupt: the version is too large to fetch.
            RegistryUnavailable: MLflow has no such version, or its files are gone or unreadable.
        """
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        with tempfile.TemporaryDirectory() as folder:
            with _mlflow_request(f"read the bundle of {uri}"):
                store = self._store_of(uri)
                files = self._files_within_limits(uri, store, part)
                local = Path(store.artifact_dir) if isinstance(store, LocalArtifactRepository) else None
                package = Path(folder, part)
                if in_place and local is not None:
                    package = Path(store.download_artifacts(part))  # type: ignore[no-untyped-call]
                elif local is None or not _copy_plain(local, part, files, Path(folder)):
                    package = Path(store.download_artifacts(part, folder))  # type: ignore[no-untyped-call]
            if not (package if part else package / integrity.BUNDLE).is_dir():
                raise RegistryUnavailable(
                    f"MLflow could not read the bundle of {uri}: the files are missing. "
                    "Restore the version from a backup."
                )
            yield package

    def _artifacts_of(self, run_id: str) -> str:
        """Address of the artifacts of a run."""
        known = artifacts_of(self._uri, run_id) if is_database(self._uri) else None
        return known or str(self._client.get_run(run_id).info.artifact_uri)

    def _store_of(self, uri: str) -> "ArtifactRepository":
        assert self._fluent
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if uri.startswith("models:/"):
            uri = self._location_of(uri)
        return get_artifact_repository(uri)

    def _location_of(self, uri: str) -> str:
        """Address of the files of a version; the id alone names a logged model, which MLflow looks up."""
        from mlflow.store.artifact.utils.models import get_model_name_and_version

        model_id, _, alias = uri.removeprefix("models:/").partition("@")
        if alias and is_database(self._uri):
            location = location_behind(self._uri, model_id, alias)
            if location is not None:
                return location
        named: Sequence[str] = get_model_name_and_version(self._client, uri)  # type: ignore[no-untyped-call]
        if len(named) != 2:
            return uri
        # MLflow would resolve the version with a client of its own; see `ModelClient`
        return str(self._client.get_model_version_download_uri(*named))

    def _files_within_limits(self, uri: str, store: "ArtifactRepository", part: str) -> list[str]:
        """Paths of the files of a version or a folder, by MLflow's listing.

        Raises:
            BundleCorrupt: the files are too large to fetch.
        """
        listed = list(islice(_listed(uri, store, part), MAX_FILES + 1))
        if len(listed) > MAX_FILES or sum(size for _, size in listed) > self._max_bytes:
            raise BundleCorrupt(
                f"{uri} holds more than {MAX_FILES} files or {self._max_bytes / 2**20:g} MiB: "
                "raise max_version_mib if the version may be larger"
            )
        return [path for path, _ in listed]

    def _tags(self, model_id: str, mlflow_version: int) -> dict[str, str]:
        if is_database(self._uri) and (known := tags_of(self._uri, model_id, mlflow_version)) is not None:
            return known
        with _mlflow_request(f"read {model_id} {mlflow_version}"):
            tags: dict[str, str] = self._client.get_model_version(model_id, str(mlflow_version)).tags
        return tags

    def _experiment(self) -> "Experiment":
        """The experiment of all runs, created at the first use."""
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return experiment
        if self._bucket is None:
            self._artifacts.mkdir(parents=True, exist_ok=True)
        tags = {HOME_TAG: self._home_id} if self._home_id else {}
        location = self._location
        # or another process creates the experiment at this moment
        _none_on(
            {"RESOURCE_ALREADY_EXISTS"},
            lambda: self._client.create_experiment(EXPERIMENT, artifact_location=location, tags=tags),
        )
        return self._experiment()

    def _experiment_at_home(self) -> str:
        """The experiment, after a check that new versions are stored below the home in force."""
        home = self._artifacts.parents[1]
        if self._home_id is not None and HomeRecord.read(home) is None:
            raise HomeMismatch(
                f"The home {home} was moved or removed while this process ran: end this process and start "
                "again with CLM_HOME set to the present path."
            )
        known = experiment_named(self._uri, EXPERIMENT) if is_database(self._uri) else None
        if known is None:
            experiment = self._experiment()
            known = str(experiment.experiment_id), experiment.artifact_location
        experiment_id, location = known
        self._require_inside(location)
        return experiment_id

    def _require_inside(self, location: str) -> None:
        if self._bucket is not None:
            if location.rstrip("/") != self._location:
                raise HomeMismatch(
                    f"MLflow would write to {location}, and [storage] names {self._location}: take the "
                    "former setting again, or bring the files of the home into the bucket by "
                    "`clm storage upload`."
                )
            return
        if not is_inside(location, self._artifacts):
            home = self._artifacts.parents[1]
            raise HomeMismatch(
                f"MLflow would write to {location}, outside the home in force, {home}. If the home was moved "
                f"or its database restored, remove {home / 'home.json'} and run `clm models`: the home then "
                "takes the versions over. If the versions belong to another home, set CLM_HOME to the other "
                "home, or CLM_DATABASE_URL to another server."
            )

    @contextlib.contextmanager
    def _run(self, job: TrainingJob, label: str) -> "Iterator[RunInfo]":
        """MLflow's run of a training: FINISHED after the block, FAILED after an error."""
        from mlflow.tracking.context.registry import resolve_tags

        tags = {
            JOB_TAG: str(job.id),
            "clm.model_id": job.model_id,
            "clm.trigger_reason": job.trigger_reason.value,
            USER_TAG: job.requested_by,
            **regime_tag(job.training_params, job.plugin),
        }
        name = f"{job.model_id} {label}"
        experiment = self._experiment_at_home()
        assert self._fluent
        run = self._client.create_run(experiment, tags=resolve_tags(tags), run_name=name).info
        try:
            crash_at(Fault.RUN_OPENED, self._fault)
            yield run
        except BaseException:
            self._client.set_terminated(run.run_id, "FAILED")
            raise
        if not (is_database(self._uri) and finish_run(self._uri, run.run_id, "FINISHED")):
            self._client.set_terminated(run.run_id)

    @contextlib.contextmanager
    def _logged_model(self, model_id: str, run: "RunInfo") -> "Iterator[LoggedModel]":
        """MLflow's record of the files of a version: READY after the block, FAILED after an error."""
        from mlflow.entities import LoggedModelStatus

        model: LoggedModel = self._mlflow.initialize_logged_model(
            # a logged model, unlike a registered one, may not have a dot in the name
            name=model_id.replace(".", "-"),
            source_run_id=run.run_id,
            experiment_id=run.experiment_id,
        )
        try:
            yield model
        except Exception:
            self._client.finalize_logged_model(model.model_id, "FAILED")
            raise
        ready = LoggedModelStatus.READY
        if not (is_database(self._uri) and finish_logged_model(self._uri, model.model_id, ready.to_int())):
            self._client.finalize_logged_model(model.model_id, ready)

    def _store(
        self,
        model: "LoggedModel",
        run_id: str,
        bundle: Path,
        card: "ModelCard",
        config: Mapping[str, str],
        bars: "Bars | Panel",
    ) -> None:
        """Store the files of a version with the serving code.

        `Model.log` of MLflow would also read the run twice to copy its parameters and metrics, and would try
        the version out on its example: the import of the model's library and a prediction, whose failure is
        a line in the log. A promotion loads the bundle and compares the golden rows instead.
        """
        from clm_core.models.catalog import version_execution
        from clm_core.registry import version_files
        from clm_core.registry.model_file import ModelFile
        from clm_core.registry.scoring import signature_with

        symbols = [member.symbol for member in card.pool]
        description = ModelFile(
            artifact_path=model.artifact_location,
            run_id=run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
            metadata={
                "bars_needed": card.bars_needed,
                "symbol": card.trained_on.symbol,
                **({"symbols": symbols} if symbols else {}),
                "timeframe": bars.timeframe.value,
                "execution": version_execution(card.params, FIXED_UNITS).model_dump(mode="json"),
            },
        )
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "model")
            with _bytecode_off():
                version_files.save(
                    files,
                    version_files.VersionParts(
                        description=description,
                        code=SERVING_CODE,
                        bundle=bundle,
                        name=BUNDLE,
                        config=config,
                        example=_example(bars, card.bars_needed),
                        signature=signature_with(card.series, pooled=bool(symbols)),
                        requirements=_requirements(card),
                    ),
                )
            # Python would otherwise write bytecode there when a version is loaded in place, and would run
            # bytecode planted there instead of the serving code
            (files / "__pycache__").touch()
            self._store_of(model.artifact_location).log_artifacts(str(files))  # type: ignore[no-untyped-call]

    def _model(self, model_id: str) -> "RegisteredModel | None":
        return _none_on({"RESOURCE_DOES_NOT_EXIST"}, lambda: self._client.get_registered_model(model_id))

    def ensure_model(self, model_id: str, description: str | None = None) -> None:
        """Create the registered model unless there is one.

        Raises:
            AlreadyExists: a prompt in MLflow has the name.
        """
        from mlflow.exceptions import MlflowException

        if is_database(self._uri) and is_registered(self._uri, model_id):
            return
        if self._model(model_id) is not None:
            return
        try:
            self._client.create_registered_model(model_id, description=description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # otherwise a registration at the same moment
            if self._model(model_id) is None:
                raise AlreadyExists(
                    f"MLflow has a prompt of the name {model_id}: delete the prompt and repeat the retrain."
                ) from error

    def _create_version(
        self,
        job: TrainingJob,
        label: str,
        source: str,
        run_id: str,
        bundle_digest: str,
        listed: str,
        bars: "Bars | Panel",
        bars_needed: int | None,
        above: int,
    ) -> int:
        if label in self.labels(job.model_id):
            # the reservation ends when the connection to the ledger is lost
            raise AlreadyExists(f"{job.model_id} has a version {label} already: retrain again.")
        tags = {
            LABEL_TAG: label,
            STATUS_TAG: ModelStatus.TRAINING.value,
            JOB_TAG: str(job.id),
            DIGEST_TAG: bundle_digest,
            PACKAGE_TAG: listed,
            DATA_TAG: bars.content_hash,
            BARS_TAG: str(bars_needed or ""),
            CREATOR_TAG: job.requested_by,
            **regime_tag(job.training_params, job.plugin),
        }
        version = numbered(self._client, job.model_id, source, run_id, tags, lambda number: number > above)
        self._note_creator(job.model_id, int(version.version), job.requested_by)
        crash_at(Fault.VERSION_MADE, self._fault)
        self._client.set_registered_model_alias(job.model_id, label, version.version)
        return int(version.version)


def _training_metrics(
    run_id: str, logged_model: str, metrics: Mapping[str, float], learning_curve: Sequence[float]
) -> "list[Metric]":
    """Training metrics of a logged model, and the learning curve of its run."""
    from mlflow.entities import Metric

    now = round(time.time() * 1000)
    of_model = [
        Metric(f"train.{name}", value, now, 0, model_id=logged_model, run_id=run_id)
        for name, value in metrics.items()
    ]
    return [*of_model, *_points({"train.validation_loss": learning_curve})]


def _points(curves: "Mapping[str, Sequence[float] | Floats]") -> "list[Metric]":
    """Points of curves as metrics with steps, `CURVE_POINTS` a curve at most."""
    import numpy as np
    from mlflow.entities import Metric

    points = []
    for name, curve in curves.items():
        rows = np.unique(np.linspace(0, len(curve) - 1, min(CURVE_POINTS, len(curve))).astype(int))
        points += [Metric(name, float(curve[row]), 0, row) for row in rows.tolist()]
    return points


def _about(job: TrainingJob) -> str:
    """Description of a registered model."""
    members = f" of {', '.join(job.symbols)}" if job.symbols else ""
    return (
        f"{job.kind} on {job.symbol} {job.timeframe}{members}. The version with the alias `production` "
        "serves, and each version has its label as an alias. The description of a version has its "
        "verdict and history."
    )


def regime_tag(params: Mapping[str, Any], plugin: str | None) -> dict[str, str]:
    """Tag with the regime that a training is weighted towards; empty without."""
    regime = regime_of(params, plugin)
    return {} if regime is None else {REGIME_TAG: regime}


def numbered(
    client: "MlflowClient",
    model_id: str,
    source: str,
    run_id: str,
    tags: Mapping[str, str],
    may_be: Callable[[int], bool],
) -> "MLflowVersion":
    """Create a version with a number that may be used; versions with other numbers are deleted at once.

    MLflow counts up from the greatest number of the registered model, deleted versions included.
    """
    logged_model = source.removeprefix("models:/") if source.startswith("models:/") else None
    while True:
        version = client.create_model_version(
            model_id, source, run_id, tags=dict(tags), model_id=logged_model
        )
        if may_be(int(version.version)):
            return version
        client.delete_model_version(model_id, version.version)


def _listed(
    uri: str, store: "ArtifactRepository", folder: str | None = None, depth: int = 0
) -> Iterator[tuple[str, int]]:
    """Path and bytes of each file of a version, depth first, so that a loop of links ends."""
    for entry in store.list_artifacts(folder):
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or depth > MAX_DEPTH:
            raise BundleCorrupt(
                f"{uri} names a path outside of its folder or too deep, {entry.path}: no file was fetched"
            )
        if entry.is_dir:
            yield from _listed(uri, store, entry.path, depth + 1)
        else:
            yield entry.path, entry.file_size or 0


def _copy_plain(source: Path, part: str, files: Sequence[str], target: Path) -> bool:
    """Copy the files of a part of a folder by their paths.

    MLflow copies each file in a thread of its own.

    Returns:
        False, with nothing copied, for links and empty or missing folders, which are left to MLflow.
    """
    if not ((source / part).is_dir() and integrity.has_plain_files_only(source / part)):
        return False
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / file, target / file)
    return True


@contextlib.contextmanager
def _bytecode_off() -> Iterator[None]:
    """Keep Python from writing bytecode: MLflow imports the serving code in the folder that is stored."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _share_content(stored: Path, file: Path) -> None:
    """Make a file another name of the stored copy; without links on the disk the file stays a copy."""
    other_name = file.with_name(f"{file.name}.unfinished")
    with contextlib.suppress(OSError):
        other_name.unlink(missing_ok=True)
        os.link(stored, other_name)
        other_name.replace(file)


@contextlib.contextmanager
def _mlflow_request(action: str) -> Iterator[None]:
    """Raise RegistryUnavailable, naming the action, where MLflow fails."""
    try:
        yield
    except StorageUnavailable as error:
        raise RegistryUnavailable(f"MLflow could not {action}. {error}") from error
    except ModuleNotFoundError as error:
        # artifacts in S3, which the settings of this machine do not name
        if error.name != "boto3":
            raise
        raise MissingExtra("boto3", "s3") from error
    except _request_errors() as error:
        raise RegistryUnavailable(
            f"MLflow could not {action}: {error}. "
            "Check its server, database and disk; `clm reconcile` ends an interrupted promotion."
        ) from error


def _all_pages(search: "Callable[..., PagedList[T]]") -> Iterator[T]:
    """All items of a search in MLflow, which answers page by page."""
    token: str | None = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token or None
        if token is None:
            return


def _request_errors() -> tuple[type[Exception], ...]:
    """Errors of a request to MLflow, and of MLflow's own client of S3 once the client is imported."""
    from mlflow.exceptions import MlflowException

    boto = sys.modules.get("botocore.exceptions")
    of_boto = () if boto is None else (boto.BotoCoreError, boto.ClientError)
    return (MlflowException, OSError, *of_boto)


def _none_on(codes: set[str], read: Callable[[], T]) -> T | None:
    """Answer of MLflow, or None for an error with one of these codes."""
    from mlflow.exceptions import MlflowException

    try:
        return read()
    except MlflowException as error:
        if error.error_code not in codes:
            raise
        return None


def _dataset(bars: "Bars | Panel") -> Any:
    """Identity of the bars for MLflow; the bars themselves stay in the market data store under their hash."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    from clm_core.market.panel import Panel

    source: dict[str, Any]
    if isinstance(bars, Panel):
        axis = bars.index_bars()
        source = {
            "content_hash": bars.content_hash,
            "members": {member.symbol: member.content_hash for member in bars},
        }
    else:
        axis = bars
        source = {"content_hash": bars.content_hash, "bars": len(bars)}
    dataset = Dataset(
        name=f"{axis.symbol} {axis.timeframe} {axis.start:%Y-%m-%d}..{axis.end:%Y-%m-%d}",
        # MLflow allows a digest 36 characters; the whole hash is the source
        digest=bars.content_hash[:36],
        source_type="clm.market",
        source=json.dumps(source),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _requirements(card: "ModelCard") -> list[str]:
    """Requirements of the model: versions of the libraries and plug-ins of the fit."""
    # every index offers torch 2.13.0, a single index 2.13.0+cpu
    installed = [each.source.rpartition(" ") for each in card.own_features if not each.source.endswith(".py")]
    brought = {distribution: number for distribution, _, number in installed}
    return [f"{name}=={number.partition('+')[0]}" for name, number in {**card.libraries, **brought}.items()]


def _model_config(card: "ModelCard", bundle_digest: str, bars: "Bars | Panel") -> dict[str, str]:
    """Configuration of the serving code, which MLflow shows among the parameters of the run too."""
    return {
        "bundle_digest": bundle_digest,
        "symbol": card.trained_on.symbol,
        "timeframe": bars.timeframe.value,
        "calendar": bars.calendar.value,
    }


def _example(bars: "Bars | Panel", count: int | None) -> Any:
    """Table that a prediction accepts: the last training bars, as many as needed, with times as ISO text; of
    a pool those of the first member, with its symbol as the parameter."""
    import numpy as np

    from clm_core.market.panel import Panel
    from clm_core.market.series import PREFIX

    series = bars.members[0] if isinstance(bars, Panel) else bars
    last = series[-(count or 1) :]
    table = last.to_frame().reset_index()
    for name, values in last.series.items():
        table[f"{PREFIX}{name}"] = values
    # a tenth of the time of pandas' strftime
    table["timestamp"] = np.char.add(last.index.to_numpy("datetime64[s]").astype(str), "Z").tolist()
    return (table, {"symbol": series.symbol}) if isinstance(bars, Panel) else table
