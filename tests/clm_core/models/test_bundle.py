import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clm_core.domain.costs import Costs
from clm_core.domain.errors import BundleCorrupt, FeatureMismatch, ModelError
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars
from clm_core.models import bundle as bundles
from clm_core.models.bundle import load_bundle, save_bundle, verify_bundle
from clm_core.models.catalog import recipe


@pytest.fixture(scope="module")
def saved(bars: Bars, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], str]:
    small = recipe(ModelType.XGBOOST, {"rounds": 5}, Costs())
    folder = tmp_path_factory.mktemp("bundle")
    digest = save_bundle(small.fit(bars, seed=1), small, folder, bars)
    return {path.name: path.read_bytes() for path in folder.iterdir()}, digest


@pytest.fixture
def folder(saved: tuple[dict[str, bytes], str], tmp_path: Path) -> Path:
    place = tmp_path / "bundle"
    place.mkdir()
    for name, content in saved[0].items():
        (place / name).write_bytes(content)
    return place


@pytest.fixture
def digest(saved: tuple[dict[str, bytes], str]) -> str:
    return saved[1]


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "trees.ubj").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "trees.ubj").write_bytes(content)


def cut_short(folder: Path) -> None:
    os.truncate(folder / "trees.ubj", 10)


def add_a_file(folder: Path) -> None:
    (folder / "hook.py").write_text("print('hello')")


def add_a_folder(folder: Path) -> None:
    (folder / "more").mkdir()


def remove_a_file(folder: Path) -> None:
    (folder / "trees.ubj").unlink()


def link_to_the_same_bytes(folder: Path) -> None:
    (folder / "trees.ubj").rename(folder.parent / "elsewhere.ubj")
    (folder / "trees.ubj").symlink_to(folder.parent / "elsewhere.ubj")


def link_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "manifest.json")
    (folder / "manifest.json").symlink_to(folder.parent / "manifest.json")


def swap_two_files(folder: Path) -> None:
    card = (folder / "model.json").read_bytes()
    trees = (folder / "trees.ubj").read_bytes()
    (folder / "model.json").write_bytes(trees)
    (folder / "trees.ubj").write_bytes(card)


def remove_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def garble_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def indent_the_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def list_a_file_outside(folder: Path) -> None:
    (folder.parent / "outside.txt").write_text("secret")
    edit_manifest(folder, {"../outside.txt": entry(folder.parent / "outside.txt")})


def list_an_absolute_path(folder: Path) -> None:
    outside = folder.parent / "outside.txt"
    outside.write_text("secret")
    edit_manifest(folder, {str(outside): entry(outside)})


def list_a_pickle(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(b"\x80\x05.")
    edit_manifest(folder, {"model.pkl": entry(folder / "model.pkl")})


def entry(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def edit_manifest(folder: Path, files: dict[str, object]) -> None:
    """Add or replace entries in canonical form, as an attacker who knows the format."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] |= files
    (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, separators=(",", ":")))


TAMPERINGS = [
    (flip_a_byte, "trees.ubj was changed"),
    (cut_short, "trees.ubj was changed"),
    (add_a_file, "hook.py does not belong"),
    (add_a_folder, "more is not a regular file"),
    (remove_a_file, "trees.ubj is missing"),
    (link_to_the_same_bytes, "trees.ubj is not a regular file"),
    (link_the_manifest, "manifest.json is not a regular file"),
    (swap_two_files, "model.json was changed"),
    (remove_the_manifest, "manifest.json is missing"),
    (garble_the_manifest, "manifest.json cannot be read"),
    (indent_the_manifest, "manifest.json is not in canonical form"),
    (list_a_file_outside, "outside.txt is missing"),
    (list_an_absolute_path, "outside.txt is missing"),
    (list_a_pickle, "model.pkl is of a format"),
]


@pytest.mark.parametrize(("tamper", "finding"), TAMPERINGS, ids=[tamper.__name__ for tamper, _ in TAMPERINGS])
def test_a_tampered_bundle_is_refused_with_the_file_named_before_any_file_is_parsed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tamper: Callable[[Path], None], finding: str
):
    def parsed(*args: object) -> None:
        raise AssertionError("parsed before it was verified")

    monkeypatch.setattr(bundles.ModelCard, "model_validate_json", parsed)
    monkeypatch.setattr(bundles.catalog, "load", parsed)
    tamper(folder)
    with pytest.raises(BundleCorrupt, match=finding):
        load_bundle(folder)


def test_a_consistent_forgery_is_refused_by_the_digest_stored_elsewhere(folder: Path, digest: str):
    flip_a_byte(folder)
    edit_manifest(folder, {"trees.ubj": entry(folder / "trees.ubj")})
    verify_bundle(folder)
    with pytest.raises(BundleCorrupt, match=r"manifest\.json was changed"):
        verify_bundle(folder, digest)


def test_the_digest_is_the_hash_of_the_manifest(folder: Path, digest: str):
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == digest
    verify_bundle(folder, digest)


def test_a_link_to_a_bundle_is_not_a_bundle(folder: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(BundleCorrupt, match="not a bundle's folder"):
        load_bundle(tmp_path / "link")


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(BundleCorrupt, match="nowhere"):
        load_bundle(tmp_path / "nowhere")


def edit_card(folder: Path, change: Callable[[dict], None]) -> None:
    card = json.loads((folder / "model.json").read_text())
    change(card)
    (folder / "model.json").write_text(json.dumps(card))
    edit_manifest(folder, {"model.json": entry(folder / "model.json")})


def test_a_card_of_another_schema_is_refused_with_advice(folder: Path):
    edit_card(folder, lambda card: card.update(schema_version=2))
    with pytest.raises(BundleCorrupt, match="the release that wrote it"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda names: names.append("moon_phase"), "moon_phase"),
        (lambda names: names.remove("rsi_14"), "the trees were fitted on"),
    ],
    ids=["an unknown feature", "not the features of the trees"],
)
def test_a_model_of_other_features_is_refused(
    folder: Path, change: Callable[[list[str]], None], finding: str
):
    edit_card(folder, lambda card: change(card["params"]["features"]))
    with pytest.raises(FeatureMismatch, match=finding):
        load_bundle(folder)


def test_the_card_records_parameters_provenance_and_library_versions(folder: Path, bars: Bars):
    card = json.loads((folder / "model.json").read_text())
    assert card["params"]["rounds"] == 5
    assert card["trained_on"]["data_hash"] == bars.content_hash
    assert card["trained_on"]["seed"] == 1
    assert card["libraries"].keys() == {"continuous-learning-manager", "numpy", "TA-Lib", "xgboost"}


def test_a_bundle_does_not_mix_with_other_files(folder: Path, bars: Bars):
    small = recipe(ModelType.XGBOOST, {"rounds": 5}, Costs())
    with pytest.raises(ModelError, match="not empty"):
        save_bundle(small.fit(bars, seed=1), small, folder, bars)
