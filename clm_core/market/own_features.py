"""Own features: functions `bars -> array` of a user, beside the built-in features.

    from clm_core.market.own_features import feature

    @feature(warm_up=20)
    def momentum_20(bars):
        "log(close / close 20 bars ago)"
        values = np.full(len(bars), np.nan)
        values[20:] = np.log(bars.close[20:] / bars.close[:-20])
        return values

The functions are in files named by the settings (`[features] files`), or in modules of installed
distributions:

    [project.entry-points."clm.features"]
    momentum = "clm_momentum.features"

Files and modules are imported when a name is asked for that is no built-in feature.

A function receives the bars of one unbroken stretch, in pieces that begin at fixed times: `memory` bars
before every block of bars, numbered on the clock. A value therefore depends on nothing before its piece, and
the last `memory + block - 1` bars give the same value, to the last bit, as the whole history.
"""

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import CLMError, FeatureFailed, FeatureMismatch
from clm_core.market.bars import Bars, Floats
from clm_core.market.feature_declaration import DeclaredFeature, feature
from clm_core.market.feature_files import files, files_chosen, use, use_files, use_files_of
from clm_core.market.feature_source import SourceFile, of_module, of_path
from clm_core.market.series import require_series
from clm_core.market.whole_libraries import forget_without_sklearn

__all__ = [
    "DeclaredFeature",
    "FeatureOrigin",
    "OwnFeature",
    "feature",
    "files",
    "files_chosen",
    "require",
    "table",
    "use",
    "use_files",
    "use_files_of",
]

GROUP = "clm.features"
MIN_BLOCK = 256
"""Least number of bars of a block: the overhead of a call of the function is spread over the bars."""


class HasBars(Protocol):
    """Bars of an unbroken stretch."""

    @property
    def bars(self) -> Bars: ...


class FeatureOrigin(BaseModel):
    """An own feature with the place and the digest of its source, as recorded in bundles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    """Name of the file, or distribution and version: `my_features.py`, `clm-momentum 1.2`."""
    function: str
    """Name of the function, or of the variable that holds the function."""
    digest: str
    """SHA-256 of the function's source and of everything the function names in its file, hexadecimal."""

    def __str__(self) -> str:
        place = "" if self.function == self.name else f"function {self.function} of "
        return f"the feature {self.name} ({place}{self.source})"


@dataclass(frozen=True, eq=False)
class OwnFeature:
    """A function of a user as a column of the inputs of models."""

    declared: DeclaredFeature
    origin: FeatureOrigin

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def warm_up(self) -> int:
        """Number of bars of a stretch before the first value."""
        return self.declared.warm_up

    @property
    def description(self) -> str:
        return self.declared.description

    @property
    def series(self) -> tuple[str, ...]:
        """Own series that the function takes."""
        return self.declared.series

    @property
    def block(self) -> int:
        """Bars of a block: a power of two of at least half the memory, so that a bar is computed about three
        times at most."""
        return int(max(MIN_BLOCK, 1 << (self.declared.memory // 2).bit_length()))

    @property
    def memory(self) -> int:
        """Bars before a bar from which on earlier bars no longer matter."""
        return self.declared.memory + self.block - 1

    def compute(self, stretch: HasBars) -> Floats:
        """Values of one unbroken stretch, shape (n_bars,); NaN in the warm-up.

        Raises:
            FeatureFailed: the function raises, or gives values of another shape, infinite or missing.
        """
        bars = stretch.bars
        values = np.full(len(bars), np.nan)
        for first, end in self._blocks(bars):
            begin = max(0, first - self.declared.memory)
            start = max(first, self.warm_up)
            if start < end:
                piece = self.raw(bars[begin:end])
                values[start:end] = piece[start - begin :]
                self._require_numbers(bars[start:end], values[start:end])
        return values

    def raw(self, bars: Bars) -> Floats:
        """Answer of the function for the bars, shape (n_bars,), unchecked but for the shape.

        Raises:
            FeatureFailed: the function raises, or gives another shape.
        """
        # nothing undeclared: a series would be missing where the model serves
        series = {name: require_series(bars, name) for name in self.series}
        alone = replace(bars, series={})
        arguments = (alone, series) if self.series else (alone,)
        try:
            values = np.asarray(self.declared.function(*arguments), dtype=np.float64)
        except CLMError:
            raise
        except Exception as error:
            raise FeatureFailed(
                f"{self.origin} raised {type(error).__name__}: {error}, given the {len(bars)} bars from "
                f"{bars.index[0]} to {bars.index[-1]}: fix the function, then try it with "
                "`clm features check`"
            ) from error
        if values.shape != (len(bars),):
            raise FeatureFailed(
                f"{self.origin} gives values of shape {values.shape} for {len(bars)} bars: return one number "
                "for each bar"
            )
        return values

    def _blocks(self, bars: Bars) -> Iterator[tuple[int, int]]:
        """First row and end of each block of the stretch."""
        numbers = bars.time // bars.timeframe.nanoseconds // self.block
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(bars)]
        yield from pairwise(edges)

    def _require_numbers(self, bars: Bars, values: Floats) -> None:
        # a value that follows from an unknown value of a series is unknown itself
        wrong = np.flatnonzero(np.isinf(values) if self.series else ~np.isfinite(values))
        if not len(wrong):
            return
        row = int(wrong[0])
        what = "no value" if np.isnan(values[row]) else "an infinite value"
        raise FeatureFailed(
            f"{self.origin} gives {what} for the bar of {bars.index[row]}, after the warm-up of "
            f"{self.warm_up} "
            "bars: declare a longer warm_up, or return a neutral value where the formula divides by zero"
        )


_cache: tuple[object, Mapping[str, OwnFeature]] | None = None


def table() -> Mapping[str, OwnFeature]:
    """Own features by name, sorted by name; a file is imported again after a change.

    Raises:
        FeatureFailed: a file or distribution cannot be imported, or two features share a name.
    """
    global _cache  # noqa: PLW0603 - an import for each answer of a model would be slow
    paths = files()
    key = (tuple((path, _state(path)) for path in paths), tuple(sys.path))
    if _cache is None or _cache[0] != key:
        _cache = (key, _loaded(paths))
    return _cache[1]


def load_file(path: Path) -> Mapping[str, OwnFeature]:
    """Own features of one file, by name.

    Raises:
        FeatureFailed: the file cannot be imported, declares no feature, or a name twice.
    """
    return _by_name(_of_source(of_path(path)))


def load_module(module: ModuleType) -> Mapping[str, OwnFeature]:
    """Own features of an imported module, by name.

    Raises:
        FeatureFailed: the module declares no feature, or a name twice.
    """
    return _by_name(_of_source(of_module(module, module.__name__)))


def require(origins: Collection[FeatureOrigin]) -> None:
    """Check the own features of a bundle against those of this process.

    Raises:
        FeatureMismatch: a feature is missing here, or its source differs.
        FeatureFailed: a file or distribution cannot be imported.
    """
    if not origins:
        return
    here = table()
    for needed in origins:
        if needed.name not in here:
            raise FeatureMismatch(f"the model needs {needed}, which is not installed here: {_remedy(needed)}")
        installed = here[needed.name].origin
        if installed.digest != needed.digest:
            raise FeatureMismatch(
                f"the model was trained with another source of {needed}: digest {needed.digest[:12]}, "
                f"and here {installed.source} has {installed.digest[:12]}. Put the former source back, and "
                "give the changed function a name of its own for the next retrain"
            )


def _remedy(needed: FeatureOrigin) -> str:
    if needed.source.endswith(".py"):
        return (
            f"name a copy of {needed.source} in the settings, [features] files, or in the variable "
            "CLM_FEATURES__FILES; a trader's own process may call clm_core.market.own_features.use_files"
        )
    distribution, _, number = needed.source.rpartition(" ")
    return f"pip install '{distribution}=={number}'"


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _loaded(paths: Sequence[Path]) -> Mapping[str, OwnFeature]:
    features = [each for path in paths for each in _of_source(of_path(path))]
    for entry in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        features += _of_entry(entry)
    return _by_name(features)


def _by_name(features: Sequence[OwnFeature]) -> Mapping[str, OwnFeature]:
    counts = Counter(each.name for each in features)
    if twice := [name for name, count in counts.items() if count > 1]:
        places = " and ".join(str(each.origin) for each in features if each.name == twice[0])
        raise FeatureFailed(f"two own features are called {twice[0]}: {places}. Rename one")
    return {each.name: each for each in sorted(features, key=lambda each: each.name)}


def _of_entry(entry: EntryPoint) -> list[OwnFeature]:
    assert entry.dist is not None
    source = f"{entry.dist.name} {entry.dist.version}"
    forget_without_sklearn()
    try:
        loaded = entry.load()
    # a foreign module may raise anything, SystemExit included
    except (Exception, SystemExit) as error:
        raise FeatureFailed(
            f"the features {entry.name} of {source} cannot be imported ({type(error).__name__}: "
            f"{error}): fix or "
            f"uninstall {entry.dist.name}"
        ) from error
    if not isinstance(loaded, ModuleType):
        raise FeatureFailed(
            f"the entry point {entry.name} of {source} names no module: write {entry.name} = "
            '"package.module" under [project.entry-points."clm.features"]'
        )
    return _of_source(of_module(loaded, source))


def _of_source(file: SourceFile) -> list[OwnFeature]:
    features = [
        OwnFeature(declared, _origin(file, declared, variable))
        for variable, declared in _declared(file.namespace)
    ]
    if not features:
        raise FeatureFailed(
            f"{file.name} declares no feature: put @feature(warm_up=...) of "
            "clm_core.market.own_features above a function"
        )
    return features


def _declared(namespace: Mapping[str, Any]) -> Iterator[tuple[str, DeclaredFeature]]:
    """Features of a module by variable, those in lists and tuples included, each once."""
    by_id = {
        id(value): (name, value) for name, value in namespace.items() if isinstance(value, DeclaredFeature)
    }
    for name, value in namespace.items():
        for member in value if isinstance(value, list | tuple) else ():
            if isinstance(member, DeclaredFeature):
                by_id.setdefault(id(member), (name, member))
    yield from by_id.values()


def _origin(file: SourceFile, declared: DeclaredFeature, variable: str) -> FeatureOrigin:
    return FeatureOrigin(
        name=declared.name,
        source=file.name,
        function=declared.function_name,
        digest=file.digest(variable, declared.signature),
    )
