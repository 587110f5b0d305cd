"""Artifacts as MLflow's server reads them: inside one folder, links resolved."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from clm_core.registry.server.artifacts import ConfinedArtifacts, Presented

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
