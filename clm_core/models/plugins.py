"""Kinds of model that other distributions bring.

A distribution names its plug-in in its metadata; the name makes the model ids (`ridge_btcusd_1h`):

    [project.entry-points."clm.models"]
    ridge = "clm_ridge.plugin:Ridge"

Looking for plug-ins reads metadata only. A plug-in's own code is imported when it is used, or listed.
"""

import hashlib
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from clm_core.domain.costs import Costs
from clm_core.domain.errors import CLMError, InvalidPositions, PluginFailed, PluginMissing
from clm_core.domain.kinds import PluginName
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import Model, ModelCard, PluginOrigin, Progress, Recipe, TrainedOn
from clm_core.models.params import TrainingParams

GROUP = "clm.models"


class Plugin(ABC):
    """A kind of model. The class an entry point names is made without arguments."""

    params: ClassVar[type[TrainingParams]]
    """What it can be trained with; parsed before any data is loaded."""
    library: ClassVar[str]
    """The distribution that does the work: `scikit-learn`. Its version goes on every model's card."""
    seeds: ClassVar[int] = 1
    """Walk-forwards it takes to tell a model from its seed."""
    tolerance: ClassVar[float] = 0.0
    """Largest accepted difference between answers of one bundle on two machines; 0.0 demands equality."""
    retrain_every: ClassVar[timedelta | None] = timedelta(hours=168)
    """Interval of scheduled retraining; None for a kind that is retrained on demand only."""

    @abstractmethod
    def recipe(self, params: Any, costs: Costs) -> Recipe:
        """
        Args:
            params: valid, of the type that `params` names.
            costs: what the trades will cost.
        """

    @abstractmethod
    def load(self, folder: Path, card: ModelCard) -> Model:
        """Read what the model's `save` wrote; every byte of the folder is verified by then."""


@dataclass(frozen=True)
class Installed:
    """A plug-in that was imported, and where it comes from."""

    origin: PluginOrigin
    plugin: Plugin

    def recipe(self, params: TrainingParams, costs: Costs) -> "PluginRecipe":
        with blaming(self.origin):
            return PluginRecipe(self.origin, self.plugin.recipe(params, costs))

    def load(self, folder: Path, card: ModelCard) -> "PluginModel":
        with blaming(self.origin):
            return PluginModel(self.origin, self.plugin.load(folder, card))


@dataclass(frozen=True)
class PluginRecipe:
    """A plug-in's recipe; whatever goes wrong in it is said to be the plug-in's."""

    origin: PluginOrigin
    inner: Recipe

    @property
    def model_type(self) -> ModelType:
        return ModelType.OTHER

    def describe(self) -> dict[str, Any]:
        with blaming(self.origin):
            return self.inner.describe()

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> "PluginModel":
        with blaming(self.origin):
            return PluginModel(self.origin, self.inner.fit(bars, seed, progress))


@dataclass(frozen=True, eq=False)
class PluginModel:
    """A plug-in's model, whose answers are looked at before anybody trades them."""

    origin: PluginOrigin
    inner: Model = field(repr=False)

    @property
    def model_type(self) -> ModelType:
        return ModelType.OTHER

    @property
    def trained_on(self) -> TrainedOn:
        return self.inner.trained_on

    @property
    def train_metrics(self) -> dict[str, float]:
        return self.inner.train_metrics

    @property
    def learning_curve(self) -> tuple[float, ...]:
        return self.inner.learning_curve

    def positions(self, bars: Bars) -> Floats:
        with blaming(self.origin):
            positions = np.asarray(self.inner.positions(bars), dtype=np.float64)
        self._require("positions", positions, np.abs(positions) <= 1, len(bars), "-1 to 1")
        return positions

    def forecast(self, bars: Bars) -> Floats:
        with blaming(self.origin):
            forecast = np.asarray(self.inner.forecast(bars), dtype=np.float64)
        sound = np.isnan(forecast) | ((forecast >= 0) & (forecast <= 1))
        self._require("forecasts", forecast, sound, len(bars), "0 to 1, or NaN where there is none")
        return forecast

    def importances(self) -> dict[str, float]:
        with blaming(self.origin):
            return self.inner.importances()

    def save(self, folder: Path) -> None:
        with blaming(self.origin):
            self.inner.save(folder)

    def _require(self, what: str, answers: Floats, sound: Any, bars: int, allowed: str) -> None:
        if answers.shape != (bars,):
            raise InvalidPositions(f"{self.origin} gives {what} of shape {answers.shape} for {bars} bars")
        if not np.all(sound):
            raise InvalidPositions(
                f"{self.origin} gives {what} that are not {allowed}, first {answers[np.argmin(sound)]} "
                f"at row {int(np.argmin(sound))}: tell whoever wrote it"
            )


@contextmanager
def blaming(origin: PluginOrigin) -> Iterator[None]:
    """What a plug-in's code raises ends as one of our errors, which names the plug-in."""
    try:
        yield
    except CLMError:
        raise
    except Exception as error:
        raise PluginFailed(
            f"{origin} failed with {type(error).__name__}: {error}. Tell whoever wrote it"
        ) from error


def names() -> list[str]:
    """Of all plug-ins that are offered here, usable or not; imports none."""
    return sorted(entry_points(group=GROUP).names)


def origins(name: str) -> list[PluginOrigin]:
    """Every distribution that offers a plug-in by this name; more than one is one too many."""
    offered = {entry.dist.name: entry for entry in entry_points(group=GROUP, name=name) if entry.dist}
    return [_origin(offered[distribution]) for distribution in sorted(offered)]


def find(name: str) -> Installed:
    """Import a plug-in.

    Raises:
        PluginMissing: no distribution that is installed here offers it.
        PluginFailed: two do, its name is not allowed, or it cannot be used.
    """
    entry = _entry(name)
    origin = _origin(entry)
    try:
        found = entry.load()
    # a stranger's module, which may even end the process
    except (Exception, SystemExit) as error:
        raise PluginFailed(
            f"{origin} cannot be imported ({type(error).__name__}: {error}): mend {origin.distribution}, "
            "or uninstall it"
        ) from error
    return Installed(origin, _made(origin, found))


def code_digest(name: str) -> str:
    """Of every source file beside the one that its entry point names."""
    module = inspect.getfile(type(find(name).plugin))
    digest = hashlib.sha256()
    for source in sorted(Path(module).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def required(origin: PluginOrigin) -> Installed:
    """The plug-in that a bundle was made by.

    Raises:
        PluginMissing: it is not installed here, or another distribution offers one by its name.
        PluginFailed: it cannot be used.
    """
    wanted = f"the model is of {origin}: pip install '{origin.distribution}=={origin.version}'"
    if origin.name not in names():
        raise PluginMissing(f"{wanted}. It is not installed here")
    found = find(origin.name)
    if found.origin.distribution != origin.distribution:
        raise PluginMissing(f"{wanted}. Here {origin.name} is {found.origin}, so uninstall that first")
    return found


def _entry(name: str) -> EntryPoint:
    offered = entry_points(group=GROUP, name=name)
    if not offered:
        raise PluginMissing(
            f"no plug-in {name} is installed here (there is {', '.join(names()) or 'none'}): install the "
            "distribution that brings it, then look for it with clm models list-types"
        )
    offerers = [origin.distribution for origin in origins(name)]
    if len(offerers) > 1:
        raise PluginFailed(
            f"{' and '.join(offerers)} both offer a plug-in named {name}: uninstall all but one of them"
        )
    entry = next(iter(offered))
    try:
        TypeAdapter(PluginName).validate_python(name)
    except ValidationError as error:
        raise PluginFailed(
            f"{offerers[0]} names a plug-in {name!r}, which cannot be its name: it has to be a word that is "
            "not ours, of small letters, digits and _, 40 at most. Tell whoever wrote it"
        ) from error
    return entry


def _origin(entry: EntryPoint) -> PluginOrigin:
    assert entry.dist is not None
    # as pip compares names
    distribution = re.sub(r"[-_.]+", "-", entry.dist.name).lower()
    return PluginOrigin(name=entry.name, distribution=distribution, version=entry.dist.version)


def _made(origin: PluginOrigin, found: object) -> Plugin:
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise PluginFailed(f"{origin} is no class derived from clm_core.models.plugins.Plugin: mend it")
    missing = [name for name in ("params", "library") if not hasattr(found, name)]
    missing += sorted(found.__abstractmethods__)
    if missing:
        raise PluginFailed(f"{origin} does not define {', '.join(missing)}: mend it")
    try:
        version(found.library)
    except PackageNotFoundError as error:
        raise PluginFailed(f"{origin} needs {found.library}: pip install {found.library}") from error
    with blaming(origin):
        return found()
