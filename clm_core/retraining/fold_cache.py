"""Models of past folds with their answers, kept in the home: a later retrain fits the newest fold and the
final model only, and asks the newest fold only.

An entry is a bundle, named by everything that its fit depends on: parameters, costs, code, libraries,
plug-ins and own features, seed, and the content of the training bars. A corrected bar, another release or
another library thus names another entry, and an entry never becomes wrong. An entry that is damaged or cannot
be loaded is fitted again. The entries used least recently are deleted beyond a size.

Answers of the models are files of their own, named by the same facts and by the content of all bars that the
answers depend on. A file begins with the SHA-256 of the rest, and the rest with the name of the entry: a file
that is damaged, or stands in the place of another, is computed again.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from clm_core.backtest.walk_forward import Arrays
from clm_core.domain.errors import CLMError
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel
from clm_core.models.bundle import load_bundle, save_bundle
from clm_core.models.contract import Model, Recipe

MIB = 1 << 20
M = TypeVar("M", bound=Model)
UNFINISHED = ".part-"
"""Beginning of the names of entries that are being written."""
ANSWERS = ".answers"
"""Ending of the files with answers."""


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

    def answers(self, facts: dict[str, Any]) -> "KeptAnswers":
        """Answers of folds of a recipe.

        Args:
            facts: everything that the fits depend on but the training bars, as values for JSON.
        """
        return KeptAnswers(self.folder, facts)

    def trim(self) -> None:
        """Delete the entries used least recently until the rest fits the size."""
        entries = [path for path in self._entries() if not path.name.startswith(UNFINISHED)]
        sizes = {path: _size(path) for path in entries}
        total = sum(sizes.values())
        for path in sorted(entries, key=_last_used):
            if total <= self.max_mib * MIB:
                return
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
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


@dataclass(frozen=True)
class KeptAnswers:
    """A `walk_forward.AnswerStore` for folds of a recipe."""

    folder: Path
    facts: dict[str, Any]
    """Everything that the fits depend on but the training bars, as values for JSON."""

    def recall(self, facts: Mapping[str, Any], bars: Sequence[Bars]) -> Arrays | None:
        key = self._key(facts, bars)
        return _load_answers(self._entry(key), key)

    def keep(self, facts: Mapping[str, Any], bars: Sequence[Bars], answers: Arrays) -> None:
        """Write a new entry; none where the disk refuses the entry."""
        key = self._key(facts, bars)
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = self.folder / f"{UNFINISHED}{uuid.uuid4().hex}"
            unfinished.write_bytes(_packed(key, answers))
            unfinished.replace(self._entry(key))

    def _key(self, facts: Mapping[str, Any], bars: Sequence[Bars]) -> str:
        parts = [[each.content_hash, each.gap_rules] for each in bars]
        inputs = {"model": self.facts, "bars": parts, **facts}
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def _entry(self, key: str) -> Path:
        return self.folder / f"{key}{ANSWERS}"


def _key(facts: dict[str, Any], bars: Bars | Panel) -> str:
    inputs = facts | {"bars": bars.content_hash, "gap_rules": bars.gap_rules}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _packed(key: str, answers: Arrays) -> bytes:
    """Content of a file of answers."""
    head = {"key": key, "shapes": {name: values.shape for name, values in answers.items()}}
    arrays = [values.astype("<f8").tobytes() for values in answers.values()]
    content = b"".join([json.dumps(head).encode(), b"\n", *arrays])
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _load_answers(entry: Path, key: str) -> Arrays | None:
    """Answers of an entry, marked as used; None for an entry that is missing, damaged or another's."""
    with contextlib.suppress(OSError):
        digest, _, content = entry.read_bytes().partition(b"\n")
        if digest.decode(errors="replace") != hashlib.sha256(content).hexdigest():
            return None
        head, _, values = content.partition(b"\n")
        facts = json.loads(head)
        if facts["key"] != key:
            return None
        os.utime(entry)
        return _unpacked(facts["shapes"], np.frombuffer(values, dtype="<f8"))
    return None


def _unpacked(shapes: Mapping[str, Sequence[int]], values: Floats) -> Arrays:
    """Arrays of the shapes, taken from the values one after another; read-only."""
    stops = np.cumsum([math.prod(shape) for shape in shapes.values()]).tolist()
    parts = np.split(values, stops)
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=False)}


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
        files = entry.iterdir() if entry.is_dir() else [entry]
        return sum(path.stat().st_size for path in files)
    return 0


def _last_used(entry: Path) -> float:
    with contextlib.suppress(OSError):
        return entry.stat().st_mtime
    return 0.0
