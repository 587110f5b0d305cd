"""Files of versions have the content that MLflow gives them."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from clm_core.registry import version_files
from clm_core.registry.integrity import has_plain_files_only
from clm_core.registry.mlflow_registry import SERVING_CODE, _copy_plain
from clm_core.registry.model_file import ModelFile
from clm_core.registry.version_files import VersionParts, save

COLUMNS = ("open", "close", "volume")


@pytest.fixture(autouse=True)
def forms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(version_files, "_forms", kept)
    monkeypatch.setattr(version_files, "_written", set())
    return kept


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the versions that MLflow writes."""
    paths: list[str] = []
    # the name in the package mlflow may stand for a module that is imported at the first use
    pyfunc: Any = import_module("mlflow.pyfunc")
    written = pyfunc.save_model

    def save_model(**arguments: Any) -> None:
        paths.append(arguments["path"])
        written(**arguments)

    monkeypatch.setattr(pyfunc, "save_model", save_model)
    return paths


def parts_of(folder: Path, number: int, **changes: Any) -> VersionParts:
    bundle = folder / f"{number}" / "bundle"
    (bundle / "weights").mkdir(parents=True)
    (bundle / "card.json").write_text(str(number) * 3 * (number + 1))
    (bundle / "weights" / "tree.bin").write_bytes(bytes([number]))
    rng = np.random.default_rng(number)
    example = pd.DataFrame({name: rng.normal(10.0**number, 1, 5 + number) for name in COLUMNS})
    given: dict[str, Any] = {
        "description": ModelFile(
            artifact_path="models:/m-1", run_id=f"run-{number}", utc_time_created="now", model_uuid="m-1"
        ),
        "code": SERVING_CODE,
        "bundle": bundle,
        "name": "bundle",
        "config": {"bundle_digest": f"digest-{number}", "symbol": "BTCUSD"},
        "example": example,
        "signature": ModelSignature(inputs=Schema([ColSpec(DataType.double, name) for name in COLUMNS])),
        "requirements": ["numpy==0.0"],
    }
    return VersionParts(**given | changes)


def write_twice(folder: Path) -> list[str]:
    """Paths of two versions of the first form, the second of which is kept."""
    for number, name in enumerate(("first", "second")):
        save(folder / name, parts_of(folder / "parts", 3 + number))
    return [str(folder / "first"), str(folder / "second")]


def test_the_first_version_of_a_process_is_compared_with_no_repetition(
    tmp_path: Path, forms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_files, "_repeat", None)
    save(tmp_path / "first", parts_of(tmp_path / "a", 1))
    assert forms == {}


def test_a_form_that_would_be_repeated_otherwise_is_compared_once(
    tmp_path: Path, saves: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Path] = []
    monkeypatch.setattr(version_files, "_is_repeated_exactly", lambda folder, *_: compared.append(folder))
    both = write_twice(tmp_path)
    save(tmp_path / "third", parts_of(tmp_path, 1))
    assert saves == [*both, str(tmp_path / "third")]
    assert compared == [tmp_path / "second"]


def test_a_repeated_version_has_the_bytes_that_mlflow_writes(
    tmp_path: Path, saves: list[str], forms: dict[str, Any]
) -> None:
    both = write_twice(tmp_path)
    save(tmp_path / "repeated", parts_of(tmp_path / "b", 2))
    assert saves == both
    repeated = version_files._contents(tmp_path / "repeated")
    forms.clear()
    # the bundle's path is a part of MLmodel
    (tmp_path / "b").rename(tmp_path / "b-before")
    save(tmp_path / "by-mlflow", parts_of(tmp_path / "b", 2))
    assert saves == [*both, str(tmp_path / "by-mlflow")]
    assert repeated == version_files._contents(tmp_path / "by-mlflow")
    assert Path("artifacts/bundle/weights/tree.bin") in repeated


@pytest.mark.parametrize(
    "change",
    [
        {"requirements": ["numpy==0.1"]},
        {"name": "weights"},
        {"signature": ModelSignature(inputs=Schema([ColSpec(DataType.double, "open")]))},
        {"example": pd.DataFrame({name: [1.0, np.nan] for name in COLUMNS})},
        {"example": pd.DataFrame({name: [1.0] for name in (*COLUMNS, "high")})},
    ],
    ids=["requirements", "name", "signature", "missing value", "column"],
)
def test_a_version_of_another_form_is_written_by_mlflow(
    change: dict[str, Any], tmp_path: Path, saves: list[str]
) -> None:
    both = write_twice(tmp_path)
    save(tmp_path / "other", parts_of(tmp_path / "b", 2, **change))
    assert saves == [*both, str(tmp_path / "other")]


def test_a_bundle_with_a_link_is_written_by_mlflow(tmp_path: Path, saves: list[str]) -> None:
    both = write_twice(tmp_path)
    linked = parts_of(tmp_path / "b", 2)
    (linked.bundle / "weights" / "link").symlink_to(linked.bundle / "card.json")
    assert not has_plain_files_only(linked.bundle)
    save(tmp_path / "linked", linked)
    assert saves == [*both, str(tmp_path / "linked")]


def test_a_project_of_uv_in_the_working_folder_is_left_to_mlflow(
    tmp_path: Path, saves: list[str], forms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_twice(tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    for name in ("uv.lock", "pyproject.toml"):
        (project / name).write_text("")
    for number in (2, 3):
        save(tmp_path / f"of-project-{number}", parts_of(tmp_path / "b", number))
    assert len(saves) == 4
    assert len(forms) == 2
    assert (tmp_path / "of-project-3" / "uv.lock").exists()


def test_files_are_copied_and_links_and_empty_folders_are_left_to_mlflow(tmp_path: Path) -> None:
    bundle = parts_of(tmp_path, 1).bundle
    files = ["bundle/card.json", "bundle/weights/tree.bin"]
    copy = tmp_path / "copy"
    assert _copy_plain(bundle.parent, "bundle", files, copy)
    assert version_files._contents(copy / "bundle") == version_files._contents(bundle)
    other = tmp_path / "other"
    empty = bundle / "empty"
    empty.mkdir()
    assert not _copy_plain(bundle.parent, "bundle", files, other)
    empty.rmdir()
    assert not _copy_plain(bundle.parent, "missing", [], other)
    for target in (bundle / "card.json", bundle / "weights"):
        link = bundle / "link"
        link.symlink_to(target)
        assert not _copy_plain(bundle.parent, "bundle", [*files, "bundle/link"], other)
        link.unlink()
    assert not other.exists()
