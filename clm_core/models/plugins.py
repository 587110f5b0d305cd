"""Plug-ins: kinds of model from other distributions.

An entry point of the distribution names the plug-in; model ids begin with the name (`ridge_btcusd_1h`):

    [project.entry-points."clm.models"]
    ridge = "clm_ridge.plugin:Ridge"

The search for plug-ins reads metadata only. The code of a plug-in is imported when the plug-in is used or
listed.
"""

import hashlib
import inspect
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from clm_core.domain.costs import Costs
from clm_core.domain.errors import (
    CLMError,
    InvalidPositions,
    PluginFailed,
    PluginMissing,
    UnknownFeature,
)
from clm_core.domain.kinds import PluginName
from clm_core.domain.recipes import EXECUTION, SIZING
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import memory_of, select_features
from clm_core.market.whole_libraries import forget_without_sklearn
from clm_core.models.contract import (
    ExpectsReturns,
    Model,
    ModelCard,
    PluginOrigin,
    Progress,
    Recipe,
    TrainedOn,
)
from clm_core.models.params import TrainingParams

GROUP = "clm.models"


class Plugin(ABC):
    """Base class of a plug-in. The class named by the entry point is instantiated without arguments."""

    params: ClassVar[type[TrainingParams]]
    """Class of the training parameters; parsed before any data is loaded."""
    library: ClassVar[str]
    """Distribution that does the work: `scikit-learn`. Every model's card records the installed version."""
    seeds: ClassVar[int] = 1
    """Number of walk-forwards, each with another seed, needed to separate skill from the seed's luck."""
    tolerance: ClassVar[float] = 0.0
    """Largest accepted difference between answers of one bundle on two machines; 0.0 demands equality."""
    retrain_every: ClassVar[timedelta | None] = timedelta(hours=168)
    """Interval of scheduled retraining; None for a kind that is retrained on demand only."""

    sizing: ClassVar[Sizing | None] = Sizing()
    """Sizing of new versions by default; None for positions that are sized already."""

    @abstractmethod
    def recipe(self, params: Any, costs: Costs) -> Recipe:
        """Recipe with the given training parameters.

        Args:
            params: valid parameters, an instance of the class attribute `params`.
            costs: costs of the trades.
        """

    @abstractmethod
    def load(self, folder: Path, card: ModelCard) -> Model:
        """Model read from the files that `Model.save` wrote; every byte of the folder is verified before."""


@dataclass(frozen=True)
class Installed:
    """An imported plug-in and the distribution of origin."""

    origin: PluginOrigin
    plugin: Plugin

    def recipe(self, params: TrainingParams, costs: Costs) -> "PluginRecipe":
        with attributing_errors(self.origin):
            return PluginRecipe(self.origin, self.plugin.recipe(params, costs))

    def load(self, folder: Path, card: ModelCard) -> "PluginModel":
        """Model of the plug-in, which is shown the plug-in's own parameters alone."""
        needed = _derived_bars_needed(card.params) if card.bars_needed is None else card.bars_needed
        own = {name: value for name, value in card.params.items() if name not in (SIZING, EXECUTION)}
        with attributing_errors(self.origin):
            model = self.plugin.load(folder, card.model_copy(update={"params": own}))
            return PluginModel(self.origin, model, needed)


@dataclass(frozen=True)
class PluginRecipe:
    """A plug-in's recipe; errors are reported as errors of the plug-in."""

    origin: PluginOrigin
    inner: Recipe

    @property
    def model_type(self) -> ModelType:
        return ModelType.OTHER

    def describe(self) -> dict[str, Any]:
        with attributing_errors(self.origin):
            return self.inner.describe()

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> "PluginModel":
        with attributing_errors(self.origin):
            model = self.inner.fit(bars, seed, progress)
            return PluginModel(self.origin, model, _derived_bars_needed(self.inner.describe()))


@dataclass(frozen=True, eq=False)
class PluginModel:
    """A plug-in's model; answers are checked before use."""

    origin: PluginOrigin
    inner: Model = field(repr=False)
    default_bars_needed: int | None = None
    """Number for a model that does not state `bars_needed`: derived, or measured; None if unknown."""

    @property
    def bars_needed(self) -> int | None:
        with attributing_errors(self.origin):
            stated: int | None = getattr(self.inner, "bars_needed", None)
        return self.default_bars_needed if stated is None else stated

    def measured(self, bars: Bars) -> "PluginModel":
        """The model with a known `bars_needed`.

        A number that the plug-in does not state itself is tried on the bars, and measured if too small.
        """
        if self.bars_needed != self.default_bars_needed:
            return self
        return replace(self, default_bars_needed=measure(self, bars, self.default_bars_needed or 1))

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
        with attributing_errors(self.origin):
            positions = np.asarray(self.inner.positions(self._accept(bars)), dtype=np.float64)
        self._require("positions", positions, np.abs(positions) <= 1, len(bars), "-1 to 1")
        return positions

    def forecast(self, bars: Bars) -> Floats:
        with attributing_errors(self.origin):
            forecast = np.asarray(self.inner.forecast(self._accept(bars)), dtype=np.float64)
        valid = np.isnan(forecast) | ((forecast >= 0) & (forecast <= 1))
        self._require("forecasts", forecast, valid, len(bars), "0 to 1, or NaN for no forecast")
        return forecast

    def expected_return(self, bars: Bars) -> Floats:
        """Expected returns of a plug-in that offers them; NaN for others."""
        if not isinstance(self.inner, ExpectsReturns):
            return np.full(len(bars), np.nan)
        with attributing_errors(self.origin):
            expected = np.asarray(self.inner.expected_return(self._accept(bars)), dtype=np.float64)
        self._require("expected returns", expected, ~np.isinf(expected), len(bars), "finite, or NaN")
        return expected

    def importances(self) -> dict[str, float]:
        with attributing_errors(self.origin):
            return self.inner.importances()

    def save(self, folder: Path) -> None:
        with attributing_errors(self.origin):
            self.inner.save(folder)

    def _accept(self, bars: Bars) -> Bars:
        """The bars under the rules of the training: a plug-in needs no knowledge of them."""
        return self.inner.trained_on.accept(bars)

    def _require(self, name: str, answers: Floats, valid: Any, bars: int, allowed: str) -> None:
        if answers.shape != (bars,):
            raise InvalidPositions(f"{self.origin} gives {name} of shape {answers.shape} for {bars} bars")
        if not np.all(valid):
            raise InvalidPositions(
                f"{self.origin} gives {name} that are not {allowed}, first {answers[np.argmin(valid)]} "
                f"at row {int(np.argmin(valid))}: tell the author of the plug-in"
            )


def measure(model: Model, bars: Bars, at_least: int) -> int:
    """Least number of last bars, from `at_least` on, that gives the answers of all bars at 16 ends of the
    series.

    The number of bars of the series if no smaller number does.
    """
    ends = np.unique(np.linspace(len(bars) // 2, len(bars), 16).astype(int)).tolist()
    answers = [model.positions(bars), model.forecast(bars)]

    def enough(count: int) -> bool:
        for end in ends:
            window = bars[max(0, end - count) : end]
            last = [model.positions(window)[-1], model.forecast(window)[-1]]
            if not np.allclose(last, [answer[end - 1] for answer in answers], 0.0, 1e-9, equal_nan=True):
                return False
        return True

    too_few = at_least - 1
    enough_from = at_least
    while enough_from < len(bars) and not enough(enough_from):
        too_few = enough_from
        enough_from *= 2
    while enough_from - too_few > 1:
        middle = (enough_from + too_few) // 2
        if enough(middle):
            enough_from = middle
        else:
            too_few = middle
    return min(enough_from, len(bars))


def _derived_bars_needed(params: Mapping[str, Any]) -> int | None:
    """Number for a model that holds signals computed from features over a horizon; None for other models."""
    match params:
        case {"features": [*names], "horizon": int(horizon)} if _are_known(names):
            return memory_of(names) + horizon
    return None


def _are_known(names: list[Any]) -> bool:
    try:
        select_features(names)
    except (UnknownFeature, TypeError):
        return False
    return True


@contextmanager
def attributing_errors(origin: PluginOrigin) -> Iterator[None]:
    """Convert errors of a plug-in's code to PluginFailed, which names the plug-in; CLM's own errors pass."""
    try:
        yield
    except CLMError:
        raise
    except Exception as error:
        raise PluginFailed(
            f"{origin} failed with {type(error).__name__}: {error}. Tell the author of the plug-in"
        ) from error


def names() -> list[str]:
    """Names of all installed plug-ins, usable or not; imports none."""
    return sorted({offer.origin.name for offer in _offers()})


def origins(name: str) -> list[PluginOrigin]:
    """Distributions that offer a plug-in by the name; two or more make the plug-in unusable."""
    offered = {offer.origin for offer in _offers() if offer.origin.name == name}
    return sorted(offered, key=lambda origin: origin.distribution)


def find(name: str) -> Installed:
    """Import a plug-in.

    Raises:
        PluginMissing: no installed distribution offers the plug-in.
        PluginFailed: two distributions offer the plug-in, the name is not allowed or that of a rule strategy,
            or the import fails.
    """
    offer = _offer(name)
    if name in list(RuleFamily):
        distribution = offer.origin.distribution
        raise PluginFailed(
            f"{distribution} offers a plug-in named {name}, and {name} is a built-in rule strategy: "
            f"uninstall {distribution} to use the strategy, or ask the author to rename the plug-in. Stored "
            f"versions of the plug-in load as long as {distribution} is installed"
        )
    return _imported(offer)


def _imported(offer: "_Offer") -> Installed:
    origin = offer.origin
    forget_without_sklearn()
    try:
        loaded = offer.entry.load()
    # a foreign module may raise anything, SystemExit included
    except (Exception, SystemExit) as error:
        raise PluginFailed(
            f"{origin} cannot be imported ({type(error).__name__}: {error}): fix or uninstall "
            f"{origin.distribution}"
        ) from error
    return Installed(origin, _instance(origin, loaded))


def code_digest(name: str) -> str:
    """SHA-256 of every source file in the folder of the plug-in's module, hexadecimal."""
    module = inspect.getfile(type(find(name).plugin))
    digest = hashlib.sha256()
    for source in sorted(Path(module).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def required(origin: PluginOrigin) -> Installed:
    """Plug-in that made a bundle.

    Raises:
        PluginMissing: the plug-in is not installed here, or is from another distribution.
        PluginFailed: the plug-in cannot be used.
    """
    needed = f"the model is of {origin}: pip install '{origin.distribution}=={origin.version}'"
    if origin.name not in names():
        raise PluginMissing(f"{needed}. The plug-in is not installed here")
    # models of a plug-in from before the name was that of a strategy are still served
    installed = _imported(_offer(origin.name))
    if installed.origin.distribution != origin.distribution:
        raise PluginMissing(f"{needed}. Here {origin.name} is {installed.origin}: uninstall the latter first")
    return installed


@dataclass(frozen=True)
class _Offer:
    """Plug-in that a distribution offers."""

    entry: EntryPoint
    origin: PluginOrigin


def _offers() -> tuple[_Offer, ...]:
    """All plug-ins offered, the newest installation included.

    A listing reads files of every distribution, tens of milliseconds, so a process lists again only after a
    change of the import path or of a folder on the path, as by an installation.
    """
    return _listed(tuple((folder, _changed(folder)) for folder in sys.path))


@lru_cache(maxsize=1)
def _listed(path: tuple[tuple[str, int | None], ...]) -> tuple[_Offer, ...]:
    """
    Args:
        path: each folder of the import path with the time of its last change, None for no folder.
    """
    return tuple(_Offer(entry, _origin(entry)) for entry in entry_points(group=GROUP) if entry.dist)


def _changed(folder: str) -> int | None:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return None


def _offer(name: str) -> _Offer:
    offered = [offer for offer in _offers() if offer.origin.name == name]
    if not offered:
        raise PluginMissing(
            f"no plug-in {name} is installed here (installed: {', '.join(names()) or 'none'}): install the "
            "distribution with the plug-in, then check with clm models list-types"
        )
    offerers = [origin.distribution for origin in origins(name)]
    if len(offerers) > 1:
        raise PluginFailed(
            f"{' and '.join(offerers)} both offer a plug-in named {name}: keep one, uninstall the other"
        )
    try:
        TypeAdapter(PluginName).validate_python(name)
    except ValidationError as error:
        raise PluginFailed(
            f"{offerers[0]} names a plug-in {name!r}, which is not allowed: a name consists of at most 40 "
            "lower-case letters, digits and _, and is no built-in type. Tell the author of the plug-in"
        ) from error
    return offered[0]


def _origin(entry: EntryPoint) -> PluginOrigin:
    assert entry.dist is not None
    # as pip compares names
    distribution = re.sub(r"[-_.]+", "-", entry.dist.name).lower()
    return PluginOrigin(name=entry.name, distribution=distribution, version=entry.dist.version)


def _instance(origin: PluginOrigin, loaded: object) -> Plugin:
    if not (isinstance(loaded, type) and issubclass(loaded, Plugin)):
        raise PluginFailed(
            f"{origin} is no class derived from clm_core.models.plugins.Plugin: fix the plug-in"
        )
    missing = [name for name in ("params", "library") if not hasattr(loaded, name)]
    missing += sorted(loaded.__abstractmethods__)
    if missing:
        raise PluginFailed(f"{origin} does not define {', '.join(missing)}: fix the plug-in")
    if taken := sorted({SIZING, EXECUTION} & loaded.params.model_fields.keys()):
        raise PluginFailed(
            f"{origin} has a parameter named {taken[0]}, which is the name of a section of every kind's "
            "parameters: rename the parameter"
        )
    try:
        distribution(loaded.library)
    except PackageNotFoundError as error:
        raise PluginFailed(f"{origin} needs {loaded.library}: pip install {loaded.library}") from error
    with attributing_errors(origin):
        return loaded()
