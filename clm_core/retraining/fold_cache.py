"""Models of past folds, kept in the home: a later retrain fits the newest fold and the final model only.

An entry is a bundle, named by everything that its fit depends on: parameters, costs, code, libraries,
plug-ins and own features, seed, and the content of the training bars. A corrected bar, another release or
another library thus names another entry, and an entry never becomes wrong. An entry that is damaged or cannot
be loaded is fitted again. The entries used least recently are deleted beyond a size.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from clm_core.domain.errors import CLMError
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.models.bundle import load_bundle, save_bundle
from clm_core.models.contract import Model, Recipe

MIB = 1 << 20
M = TypeVar("M", bound=Model)
UNFINISHED = ".part-"
"""Beginning of the names of folders that are being written."""


@dataclass(frozen=True)
class FoldCache:
    folder: Path
    max_mib: int
    """Size beyond which the entries used least recently are deleted, MiB."""

    def fit_once(self, facts: dict[str, Any], recipe: Recipe) -> "partial[Any]":
        """A `walk_forward.FitOnce` for folds of a recipe.

        Args:
            facts: everything that the fits depend on but the training bars, as values for JSON.
        """
        return partial(self._model, facts, recipe)

    def trim(self) -> None:
        """Delete the entries used least recently until the rest fits the size."""
        entries = [path for path in self._entries() if not path.name.startswith(UNFINISHED)]
        sizes = {path: _size(path) for path in entries}
        total = sum(sizes.values())
        for path in sorted(entries, key=_last_used):
            if total <= self.max_mib * MIB:
                return
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]

    def _model(self, facts: dict[str, Any], recipe: Recipe, bars: Bars | Panel, fit: Callable[[], M]) -> M:
        entry = self.folder / _key(facts, bars)
        kept = _load(entry)
        if kept is None:
            fitted = fit()
            # loaded after the first fit as well, so that both runs have a model of the same bytes
            kept = self._keep(entry, fitted, recipe, bars) or fitted
        return cast("M", kept)

    def _keep(self, entry: Path, model: Model, recipe: Recipe, bars: Bars | Panel) -> Model | None:
        """The model as loaded from the new entry; None if the disk refuses the entry."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=UNFINISHED, dir=self.folder, ignore_cleanup_errors=True
            ) as unfinished:
                bundle = Path(unfinished) / "bundle"
                save_bundle(model, recipe, bundle, bars)
                shutil.rmtree(entry, ignore_errors=True)
                # another process may have written the entry in between, from the same inputs
                with contextlib.suppress(OSError):
                    bundle.rename(entry)
            return _load(entry)
        return None

    def _entries(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.is_dir() else []


def _key(facts: dict[str, Any], bars: Bars | Panel) -> str:
    inputs = facts | {"bars": bars.content_hash, "gap_rules": bars.gap_rules}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _load(entry: Path) -> Model | None:
    """Model of an entry, marked as used; None for an entry that is missing, damaged or of no use here."""
    if not entry.is_dir():
        return None
    with contextlib.suppress(CLMError, OSError):
        model = load_bundle(entry)
        os.utime(entry)
        return model
    return None


def _size(entry: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in entry.iterdir())
    return 0


def _last_used(entry: Path) -> float:
    with contextlib.suppress(OSError):
        return entry.stat().st_mtime
    return 0.0
