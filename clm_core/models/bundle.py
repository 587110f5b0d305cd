"""A model on disk: a flat folder of safe files, verified against a manifest before any file is parsed.

model.json      description of the model (`ModelCard`)
trees.ubj ...   the model's own files, in formats for data only, never code
golden.json     the model's answers to the last training bars at the time of saving (`golden`); a pooled
                model has golden-0.json and so on, one file a member
activity.json   the model's own positions on its newest training bars, in figures (`activity`)
manifest.json   SHA-256 and size of every other file, as canonical JSON

The bundle's digest is the SHA-256 of the manifest: stored elsewhere, the digest protects every byte.
"""

import hashlib
import json
import stat
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clm_core.domain.distributions import installed_version
from clm_core.domain.errors import BundleCorrupt, ModelError
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.models import activity, catalog, golden
from clm_core.models.contract import Model, ModelCard, Recipe
from clm_core.models.kind import DISTRIBUTION
from clm_core.models.params import own_origins, series_names
from clm_core.models.plugins import PluginModel
from clm_core.models.pooled import PooledModel
from clm_core.models.sizing import SizedModel

MANIFEST = "manifest.json"
CARD = "model.json"
SAFE_SUFFIXES = frozenset({".json", ".ubj", ".txt", ".safetensors"})
LIBRARIES = (DISTRIBUTION, "numpy", "TA-Lib")
"""Distributions every fit depends on, besides the library of the kind."""


class Entry(BaseModel):
    """Checksum and size of a file in the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    """Bytes."""


class BundleManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: int = Field(default=1, ge=1, le=1)
    files: dict[str, Entry]
    """Entries by plain file name: a bundle has no folders."""

    def canonical(self) -> bytes:
        """JSON with sorted keys and no spaces: equal manifests have equal bytes, hence equal digests."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":")).encode()


def save_bundle(model: Model, recipe: Recipe, folder: Path, bars: Bars | Panel) -> str:
    """Write a model with golden rows as a bundle into an empty or absent folder.

    Args:
        bars: training bars of the model, a panel for a pooled model; the answers to the last bars, of each
            member, are the golden rows.

    Returns:
        The bundle's digest.

    Raises:
        ModelError: the folder is not empty, or the model writes a file not allowed in a bundle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ModelError(f"{folder} is not empty: a bundle needs a folder of its own")
    model = _measured(model, bars)
    model.save(folder)
    _require_storable(folder)
    golden.record(model, bars, folder)
    activity.record(model, bars, folder)
    return seal(folder, card_of(model, recipe))


def seal(folder: Path, card: ModelCard) -> str:
    """Write card and manifest of a bundle whose other files are complete.

    Returns:
        The bundle's digest.
    """
    # a card without own features, series and a pool stays readable by earlier releases
    unused = {name for name in ("own_features", "series", "pool") if not getattr(card, name)}
    (folder / CARD).write_text(card.model_dump_json(indent=2, exclude=unused))
    files = {path.name: _entry(path) for path in folder.iterdir() if path.name != MANIFEST}
    manifest = BundleManifest(files=files).canonical()
    (folder / MANIFEST).write_bytes(manifest)
    return hashlib.sha256(manifest).hexdigest()


def load_bundle(folder: Path, digest: str | None = None) -> Model:
    """Model of a bundle, verified before any file is parsed.

    Args:
        digest: return value of `save_bundle`. Without a digest damage is detected, but not replacement by
            another consistent bundle.

    Raises:
        BundleCorrupt: a file is missing, added, changed or of a format not allowed in a bundle.
        FeatureMismatch: a feature of the model is missing here, or has another source.
        PluginMissing: the plug-in that fitted the model is not installed here; names the distribution.
    """
    verify_bundle(folder, digest)
    card = read_card(folder)
    if card.pool:
        members = [catalog.load(folder, card.of_member(member)) for member in card.pool]
        return PooledModel(card.trained_on, tuple(members))
    return catalog.load(folder, card)


def read_card(folder: Path) -> ModelCard:
    """Card of a verified bundle.

    Raises:
        BundleCorrupt: the card was written by an incompatible release.
    """
    try:
        return ModelCard.model_validate_json((folder / CARD).read_bytes())
    except ValidationError as error:
        raise BundleCorrupt(
            f"{folder / CARD} is not a model card of this release ({error.error_count()} problems): "
            "load it with the release that wrote it, or train the model again"
        ) from error


def verify_bundle(folder: Path, digest: str | None = None) -> None:
    """Compare a bundle's files with the manifest, and the manifest with the digest if given.

    Raises:
        BundleCorrupt: a file differs from the saved file; names the first.
    """
    present = _regular_files(folder)
    manifest = _manifest(folder, digest)
    expected = manifest.files.keys() | {MANIFEST}
    for name in sorted(present ^ expected):
        raise _corrupt(folder, name, "is missing" if name in expected else "does not belong to the bundle")
    for name, entry in sorted(manifest.files.items()):
        if Path(name).suffix not in SAFE_SUFFIXES:
            raise _corrupt(folder, name, f"is of a format a bundle may not hold ({sorted(SAFE_SUFFIXES)})")
        if _entry(folder / name) != entry:
            raise _corrupt(folder, name, "was changed")
    if CARD not in expected:
        raise _corrupt(folder, CARD, "is missing")


def card_of(model: Model, recipe: Recipe) -> ModelCard:
    return ModelCard(
        model_type=model.model_type,
        plugin=catalog.origin(model),
        params=recipe.describe(),
        trained_on=model.trained_on,
        train_metrics=model.train_metrics,
        libraries=installed_libraries(model),
        bars_needed=model.bars_needed,
        own_features=own_origins(recipe.describe()),
        series=series_names(recipe.describe()),
        pool=tuple(each.trained_on for each in model.members) if isinstance(model, PooledModel) else (),
    )


def installed_libraries(of: Model | Recipe) -> dict[str, str]:
    """Installed versions of the distributions a fit depends on, by name."""
    return {name: installed_version(name) for name in (*LIBRARIES, *catalog.distributions(of))}


def _measured(model: Model, bars: Bars | Panel) -> Model:
    """The model with a known `bars_needed`, also where a plug-in does not state the number."""
    if isinstance(bars, Panel):
        # plug-ins cannot pool
        return model
    if isinstance(model, SizedModel):
        return replace(model, inner=_measured(model.inner, bars))
    return model.measured(bars) if isinstance(model, PluginModel) else model


def _require_storable(folder: Path) -> None:
    """Refuse files that verification would reject on loading."""
    for path in sorted(folder.iterdir()):
        taken = path.name in (MANIFEST, CARD, activity.FILE) or golden.is_golden(path.name)
        if taken or path.suffix not in SAFE_SUFFIXES:
            raise ModelError(
                f"the model wrote {path.name}, which no bundle may hold: a file needs an unused name with "
                f"one of the endings {', '.join(sorted(SAFE_SUFFIXES))}"
            )
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ModelError(f"the model wrote {path.name}, which is not a regular file: a bundle is flat")


def _regular_files(folder: Path) -> set[str]:
    if folder.is_symlink() or not folder.is_dir():
        raise BundleCorrupt(f"{folder} is not a bundle's folder: give the folder written by save_bundle")
    for path in sorted(folder.iterdir()):
        # lstat: the target of a symlink could be any file, and change after the check
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _corrupt(folder, path.name, "is not a regular file")
    return {path.name for path in folder.iterdir()}


def _manifest(folder: Path, digest: str | None) -> BundleManifest:
    path = folder / MANIFEST
    if not path.exists():
        raise _corrupt(folder, MANIFEST, "is missing")
    raw = path.read_bytes()
    if digest is not None and hashlib.sha256(raw).hexdigest() != digest:
        raise _corrupt(folder, MANIFEST, f"was changed: its SHA-256 is not {digest}")
    try:
        manifest = BundleManifest.model_validate_json(raw)
    except ValidationError as error:
        raise _corrupt(folder, MANIFEST, "cannot be read as a manifest") from error
    if manifest.canonical() != raw:
        raise _corrupt(folder, MANIFEST, "is not in canonical form")
    return manifest


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(sha256=sha256, size=path.stat().st_size)


def _corrupt(folder: Path, name: str, problem: str) -> BundleCorrupt:
    return BundleCorrupt(
        f"the bundle {folder} cannot be trusted: {name} {problem}. "
        "Restore the bundle from the registry, or train the model again"
    )
