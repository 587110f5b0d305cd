"""Artifacts as MLflow's server reads them: below one folder, with links resolved, or below one bucket."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from clm_core.domain.errors import StorageUnavailable
from clm_core.domain.storage_settings import StorageSettings
from clm_core.platform.bucket import Bucket
from clm_core.registry.bucket_artifacts import BucketArtifacts, is_below
from clm_core.registry.locations import artifacts_location

SCHEMES = ("s3", "r2", "gs", "wasbs", "abfss", "b2", "runs", "models", "mlflow-artifacts")
"""Schemes of locations that the server reads beside files: object stores and MLflow's own. A location of
another server (http, ftp, hdfs ...) in the database would make this server send requests there."""
PROXY = "mlflow-artifacts:/"
"""Locations that MLflow's clients read through the server they are connected to."""


class ConfinedArtifacts(LocalArtifactRepository):
    """Files of a location, refused unless their real path is inside the folder of the artifacts.

    Nothing is written or deleted: CLM's processes write their artifacts themselves.
    """

    def __init__(
        self,
        root: Path,
        artifact_uri: str,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._root = os.path.realpath(root)
        self._require_inside(self.artifact_dir)

    def get_local_path(self, artifact_path: str) -> str:
        path: str = super().get_local_path(artifact_path)
        self._require_inside(path)
        return path

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        self._require_inside(self._joined(path))
        entries = super().list_artifacts(path)  # type: ignore[no-untyped-call]
        return [entry for entry in entries if self._is_inside(self._joined(entry.path))]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._require_inside(self._joined(remote_file_path))
        super()._download_file(remote_file_path, local_path)  # type: ignore[no-untyped-call]

    def download_trace_data(self) -> dict[str, Any]:
        self._require_inside(self._joined("traces.json"))
        data: dict[str, Any] = super().download_trace_data()
        return data

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        raise _refused("This server deletes no artifacts.")

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        raise _refused("This server stores no artifacts: CLM alone registers versions.")

    def _get_or_create_artifact_dir(self, artifact_path: str | None = None) -> str:
        raise _refused("This server stores no artifacts: CLM alone registers versions.")

    def _joined(self, path: str | None) -> str:
        return os.path.join(self.artifact_dir, path or "")

    def _is_inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self._root or real.startswith(self._root + os.sep)

    def _require_inside(self, path: str) -> None:
        if not self._is_inside(path):
            raise _refused("The location is outside the folder of CLM's artifacts.")


class ReadOnlyBucketArtifacts(ArtifactRepository):
    """Artifacts of a location in the bucket, refused unless the location is below the artifacts of CLM.

    Nothing is written or deleted: CLM's processes write their artifacts themselves. No subclass of MLflow's
    repository for S3: the server would offer clients URLs of the bucket signed with CLM's keys.
    """

    def __init__(
        self,
        bucket: Bucket,
        root: str,
        artifact_uri: str,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        if not is_below(artifact_uri, root) or _leads_out(artifact_uri.removeprefix(root)):
            raise _refused("The location is outside the bucket of CLM's artifacts.")
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._stored = BucketArtifacts(bucket, artifact_uri, tracking_uri, registry_uri)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        _require_plain(path or "")
        with _as_mlflow_error():
            return self._stored.list_artifacts(path)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        _require_plain(remote_file_path)
        with _as_mlflow_error():
            self._stored._download_file(remote_file_path, local_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        raise _refused("This server deletes no artifacts.")

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        raise _refused("This server stores no artifacts: CLM alone registers versions.")

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        raise _refused("This server stores no artifacts: CLM alone registers versions.")


@contextlib.contextmanager
def _as_mlflow_error() -> Iterator[None]:
    """Errors of the storage as an answer of MLflow's server with the status 503."""
    try:
        yield
    except StorageUnavailable as error:
        raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from error


def _require_plain(path: str) -> None:
    if path.startswith("/") or _leads_out(path):
        raise _refused("The location is outside the bucket of CLM's artifacts.")


def _leads_out(path: str) -> bool:
    return ".." in path.split("/")


def _in_json(text: str, ascii_only: bool) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _refused(reason: str) -> MlflowException:
    return MlflowException(reason, error_code=PERMISSION_DENIED)


def confine(root: Path, storage: StorageSettings) -> None:
    """Let this process read artifacts inside the folder, and in the bucket of the settings or, without such a
    bucket, in object stores alone."""
    repositories = _artifact_repository_registry._registry
    for scheme in [scheme for scheme in repositories if scheme not in SCHEMES]:
        del repositories[scheme]
    for scheme in ("", "file"):
        repositories[scheme] = partial(ConfinedArtifacts, root)
    if storage.url is not None:
        location = artifacts_location(root, storage)
        repositories["s3"] = partial(ReadOnlyBucketArtifacts, Bucket(storage), location)


def _forms(root: Path) -> set[str]:
    folders = {root.absolute(), root.resolve()}
    return {form for folder in folders for form in (str(folder), folder.as_uri())}


class Presented:
    """Locations inside a folder or below a URL, shown to clients as addresses of this server."""

    def __init__(self, root: Path | str) -> None:
        forms = {root} if isinstance(root, str) else _forms(root)
        spelled = {_in_json(form, plain) for form in forms for plain in (True, False)}
        # a text of MLflow may hold JSON itself
        spelled |= {_in_json(form, plain) for form in spelled for plain in (True, False)}
        longest_first = sorted(spelled, key=len, reverse=True)
        anyone = "|".join(re.escape(form) for form in longest_first)
        # the value starts with the folder, and goes on below the folder or ends, also in JSON within a text
        self._pattern = re.compile(rf'"(?:{anyone})(?:/|(?=\\?"))'.encode())

    def __call__(self, body: bytes) -> bytes:
        """JSON text with the locations replaced."""
        return self._pattern.sub(f'"{PROXY}'.encode(), body)
