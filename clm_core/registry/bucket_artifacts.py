"""MLflow's client of S3 for the bucket of the settings: its keys, its address, and errors with advice.

MLflow makes a client from variables of the process alone. The module imports mlflow, which takes seconds;
import the module inside functions only.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

from clm_core.platform.bucket import Bucket

SCHEME = "s3"
T = TypeVar("T")
_buckets: dict[str, Bucket] = {}
"""Buckets in use by this process, by URL."""


class BucketArtifacts(S3ArtifactRepository):
    """Artifacts below a location in the bucket of the settings."""

    def __init__(
        self,
        bucket: Bucket,
        artifact_uri: str,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        super().__init__(artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)
        self._bucket_in_use = bucket

    def _get_s3_client(self) -> Any:
        return self._bucket_in_use.client

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        entries: list[FileInfo] = super().list_artifacts(path)  # type: ignore[no-untyped-call]
        return entries

    def _iterate_s3_paginated_results(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        with self._bucket_in_use.errors(f"list {self.artifact_uri}", "s3:ListBucket"):
            pages = self._get_s3_client().get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        with self._bucket_in_use.errors(f"read {self.artifact_uri}", "s3:GetObject"):
            super()._download_file(remote_file_path, local_path)  # type: ignore[no-untyped-call]

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        with self._bucket_in_use.errors(f"write to {self.artifact_uri}", "s3:PutObject"):
            super().log_artifact(local_file, artifact_path)  # type: ignore[no-untyped-call]

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        with self._bucket_in_use.errors(f"write to {self.artifact_uri}", "s3:PutObject"):
            super().log_artifacts(local_dir, artifact_path)  # type: ignore[no-untyped-call]


def use(bucket: Bucket) -> None:
    """Let MLflow in this process reach the locations below a bucket's URL by the bucket's client."""
    _buckets[bucket.url] = bucket
    register(_repository)


def register(make: Callable[..., ArtifactRepository]) -> None:
    """Make MLflow take a repository for every location in S3."""
    _artifact_repository_registry.register(SCHEME, make)  # type: ignore[no-untyped-call]


def is_below(location: str, url: str) -> bool:
    """True for a location at or below a URL."""
    return f"{location.rstrip('/')}/".startswith(f"{url}/")


def _repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> ArtifactRepository:
    bucket = next((each for url, each in _buckets.items() if is_below(artifact_uri, url)), None)
    if bucket is None:
        return S3ArtifactRepository(artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)
    return BucketArtifacts(bucket, artifact_uri, tracking_uri, registry_uri)
