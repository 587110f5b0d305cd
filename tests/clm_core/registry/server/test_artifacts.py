"""Artifacts as MLflow's server reads them: inside one folder, links resolved."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import (
    MultipartDownloadMixin,
    MultipartUploadMixin,
    PresignedUploadMixin,
)
from moto import mock_aws

from clm_core.domain.storage_settings import StorageSettings
from clm_core.platform.bucket import Bucket
from clm_core.registry.server.artifacts import ConfinedArtifacts, Presented, ReadOnlyBucketArtifacts

OUTSIDE = "outside the (folder|artifact directory)"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folder of artifacts with links out of it."""
    root = tmp_path / "mlflow" / "artifacts"
    (root / "1").mkdir(parents=True)
    (root / "1" / "file").write_text("ours")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "prefect.auth").write_text("clm:password")
    (root / "1" / "link").symlink_to(tmp_path / "secret")
    (root / "1" / "file-link").symlink_to(tmp_path / "secret" / "prefect.auth")
    (root / "whole").symlink_to(tmp_path / "secret")
    return root


def test_files_of_the_folder_are_read(root: Path, tmp_path: Path) -> None:
    artifacts = ConfinedArtifacts(root, (root / "1").as_uri())
    assert Path(artifacts.get_local_path("file")).read_text() == "ours"
    assert Path(artifacts.download_artifacts("file", str(tmp_path))).read_text() == "ours"


@pytest.mark.parametrize(
    "read",
    [
        lambda artifacts: artifacts.get_local_path("link/prefect.auth"),
        lambda artifacts: artifacts.get_local_path("file-link"),
        lambda artifacts: artifacts.download_artifacts("file-link"),
        lambda artifacts: artifacts.list_artifacts("link"),
        lambda artifacts: artifacts._download_file("file-link", "/dev/null"),
    ],
    ids=["path", "path of a link", "download", "list", "download into"],
)
def test_no_link_leads_out_of_the_folder(root: Path, read: Callable[[ConfinedArtifacts], object]) -> None:
    artifacts = ConfinedArtifacts(root, (root / "1").as_uri())
    with pytest.raises(MlflowException, match=OUTSIDE):
        read(artifacts)


def test_a_listing_leaves_out_links_that_lead_out(root: Path) -> None:
    artifacts = ConfinedArtifacts(root, (root / "1").as_uri())
    assert [entry.path for entry in artifacts.list_artifacts()] == ["file"]


@pytest.mark.parametrize("location", ["secret", "mlflow/artifacts/whole", "mlflow/artifacts/../../secret"])
def test_a_location_outside_the_folder_is_refused(root: Path, tmp_path: Path, location: str) -> None:
    for uri in (f"{tmp_path}/{location}", f"file://{tmp_path}/{location}"):
        with pytest.raises(MlflowException, match=OUTSIDE):
            ConfinedArtifacts(root, uri)


def test_the_server_stores_and_deletes_nothing(root: Path, tmp_path: Path) -> None:
    artifacts = ConfinedArtifacts(root, (root / "1").as_uri())
    (tmp_path / "new").write_text("new")
    for write in (
        lambda: artifacts.log_artifact(str(tmp_path / "new")),
        lambda: artifacts.log_artifacts(str(tmp_path / "secret")),
        lambda: artifacts.delete_artifacts("file"),
    ):
        with pytest.raises(MlflowException, match="This server"):
            write()
    assert (root / "1" / "file").exists()


def test_locations_inside_the_folder_are_shown_as_addresses_of_the_server(tmp_path: Path) -> None:
    root = tmp_path / "a hoµse" / "artifacts"
    present = Presented(root)
    nested = json.dumps({"location": f"{root}/2"})
    answer = {
        "artifact_location": root.as_uri(),
        "artifact_uri": f"{root}/1/run/artifacts",
        "source": f"{root.as_uri()}/models/m-1/artifacts",
        "history": nested,
        "note": f"stored in {root}/1",
        "beside": f"{root}-2/x",
    }
    shown = {
        "artifact_location": "mlflow-artifacts:/",
        "artifact_uri": "mlflow-artifacts:/1/run/artifacts",
        "source": "mlflow-artifacts:/models/m-1/artifacts",
        "history": json.dumps({"location": "mlflow-artifacts:/2"}),
        "note": f"stored in {root}/1",
        "beside": f"{root}-2/x",
    }
    for as_ascii in (True, False):
        body = json.dumps(answer, ensure_ascii=as_ascii).encode()
        assert json.loads(present(body)) == shown


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with mock_aws():
        made = Bucket(StorageSettings(url="s3://trading/clm", access_key="key", secret_key="secret"))
        made.client.create_bucket(Bucket="trading")
        for key in ("clm/artifacts/models/m-1/artifacts/MLmodel", "clm/data/secret", "others"):
            made.client.put_object(Bucket="trading", Key=key, Body=key.encode())
        yield made


ROOT = "s3://trading/clm/artifacts"


def test_artifacts_in_the_bucket_are_listed_and_fetched(bucket: Bucket, tmp_path: Path) -> None:
    artifacts = ReadOnlyBucketArtifacts(bucket, ROOT, ROOT)
    path = "models/m-1/artifacts/MLmodel"
    assert [entry.path for entry in artifacts.list_artifacts("models/m-1/artifacts")] == [path]
    fetched = artifacts.download_artifacts(path, str(tmp_path))
    assert Path(fetched).read_text() == f"clm/artifacts/{path}"


@pytest.mark.parametrize(
    "location",
    ["s3://trading", "s3://trading/clm/data", f"{ROOT}/../data", f"{ROOT}-2", "s3://others/clm/artifacts"],
)
def test_a_location_outside_the_artifacts_of_the_bucket_is_refused(bucket: Bucket, location: str) -> None:
    with pytest.raises(MlflowException, match="outside the bucket"):
        ReadOnlyBucketArtifacts(bucket, ROOT, location)


@pytest.mark.parametrize("path", ["../data/secret", "/others", "models/../../data/secret"])
def test_a_path_out_of_the_artifacts_of_the_bucket_is_refused(
    bucket: Bucket, tmp_path: Path, path: str
) -> None:
    artifacts = ReadOnlyBucketArtifacts(bucket, ROOT, ROOT)
    for read in (
        lambda: artifacts.list_artifacts(path),
        lambda: artifacts._download_file(path, str(tmp_path / "copy")),
    ):
        with pytest.raises(MlflowException, match="outside the bucket"):
            read()


def test_the_server_stores_deletes_and_signs_nothing_in_the_bucket(bucket: Bucket, tmp_path: Path) -> None:
    artifacts = ReadOnlyBucketArtifacts(bucket, ROOT, ROOT)
    for write in (
        lambda: artifacts.log_artifact(str(tmp_path)),
        lambda: artifacts.log_artifacts(str(tmp_path)),
        lambda: artifacts.delete_artifacts("models"),
    ):
        with pytest.raises(MlflowException, match="This server"):
            write()
    # MLflow's server would offer signed URLs of the bucket
    assert not isinstance(artifacts, MultipartDownloadMixin | MultipartUploadMixin | PresignedUploadMixin)


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_gone_is_no_traceback_of_the_server() -> None:
    gone = Bucket(StorageSettings(url="s3://gone", access_key="key", secret_key="secret"))
    with pytest.raises(MlflowException, match="there is no bucket gone") as error:
        ReadOnlyBucketArtifacts(gone, "s3://gone/artifacts", "s3://gone/artifacts").list_artifacts()
    assert error.value.get_http_status_code() == 503


def test_locations_in_the_bucket_are_shown_as_addresses_of_the_server() -> None:
    body = json.dumps({"source": f"{ROOT}/models/m-1/artifacts", "beside": f"{ROOT}-2/x", "root": ROOT})
    shown = {"source": "mlflow-artifacts:/models/m-1/artifacts", "beside": f"{ROOT}-2/x"}
    assert json.loads(Presented(ROOT)(body.encode())) == shown | {"root": "mlflow-artifacts:/"}
