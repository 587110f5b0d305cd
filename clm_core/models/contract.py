"""What every model is: something that turns bars into positions, and a recipe that fits one.

A trees model, a forecaster and an RL policy look alike to backtest, shadow and gate:

    recipe = BoostingRecipe(XGBoostParams(max_depth=5))
    model = recipe.fit(bars, seed=7)
    model.positions(bars)      # shape (n_bars,), in [-1, 1]
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import FeatureMismatch
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe

Progress = Callable[[float], None]
"""Called with the finished share of the work, 0..1; may be called from any thread."""


class TrainedOn(BaseModel):
    """The series, and the seed, a model was fitted with: its provenance, and the only series it accepts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    timeframe: Timeframe
    calendar: Calendar
    start: datetime
    """Open time of the first bar (UTC)."""
    end: datetime
    """Open time of the last bar (UTC)."""
    bars: int
    data_hash: str
    """Content hash of the bars, hexadecimal."""
    seed: int

    @classmethod
    def of(cls, bars: Bars, seed: int) -> "TrainedOn":
        return cls(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            calendar=bars.calendar,
            start=bars.start.to_pydatetime(),
            end=bars.end.to_pydatetime(),
            bars=len(bars),
            data_hash=bars.content_hash,
            seed=seed,
        )

    def require_same_series(self, bars: Bars) -> None:
        own = (self.symbol, self.timeframe, self.calendar)
        given = (bars.symbol, bars.timeframe, bars.calendar)
        if own != given:
            raise FeatureMismatch(
                f"the model was fitted on {' '.join(own)} and cannot judge {' '.join(given)}: "
                "give it bars of its own series, or train a model on these"
            )


class PluginOrigin(BaseModel):
    """A plug-in, and the distribution it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    distribution: str
    """Name in lower case, with hyphens."""
    version: str

    def __str__(self) -> str:
        return f"the plug-in {self.name} of {self.distribution} {self.version}"


class ModelCard(BaseModel):
    """What a bundle says about its model (`model.json`): enough to load it and to fit it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    model_type: ModelType
    plugin: PluginOrigin | None = None
    """Who fitted and loads it; None unless the type is OTHER."""
    params: dict[str, Any]
    """`Recipe.describe()`: every training parameter with its effective value."""
    trained_on: TrainedOn
    train_metrics: dict[str, float]
    libraries: dict[str, str]
    """Installed versions the fit ran with, by distribution name."""


class Model(Protocol):
    """A fitted model. Immutable; safe to share between threads."""

    @property
    def model_type(self) -> ModelType: ...

    @property
    def trained_on(self) -> TrainedOn: ...

    @property
    def train_metrics(self) -> dict[str, float]:
        """What the fit measured of itself on its own (in-sample and early-stopping) rows."""
        ...

    @property
    def learning_curve(self) -> tuple[float, ...]:
        """Validation loss after each step of the fit; empty for a model that was loaded."""
        ...

    def positions(self, bars: Bars) -> Floats:
        """Wanted exposure after each bar, shape (n_bars,), in [-1, 1].

        The value at bar t uses bars up to and including t and is executed at the open of t + 1. Rows
        without a full look-back (the start, or after a gap) are 0.0: no view, no position. Never NaN.

        Raises:
            FeatureMismatch: the bars are of another symbol or timeframe than the model was fitted on.
        """
        ...

    def forecast(self, bars: Bars) -> Floats:
        """Probability, 0..1, that the price rises over the model's horizon, shape (n_bars,).

        NaN where there is no full look-back, and everywhere for a model that makes no forecasts.
        """
        ...

    def importances(self) -> dict[str, float]:
        """Share of each feature in the model's decisions, summing to 1; empty where it has none."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model's own files (no pickle) into an existing, empty folder."""
        ...


class Recipe(Protocol):
    """Validated training parameters that can fit models; immutable."""

    @property
    def model_type(self) -> ModelType: ...

    def describe(self) -> dict[str, Any]:
        """Every parameter with its effective value, JSON-ready."""
        ...

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> Model:
        """Train on all of `bars`; the same bars and seed give a model with the same positions.

        Raises:
            NotEnoughBars: too few rows with features and labels to train on.
        """
        ...


@runtime_checkable
class WarmStarting(Recipe, Protocol):
    """A recipe whose models may begin where an older one ended."""

    @property
    def warm_start(self) -> bool:
        """Whether the folds of a walk-forward shall: they are fitted one after the other then."""
        ...

    def fit_after(self, older: Model, bars: Bars, seed: int, progress: Progress | None = None) -> Model:
        """Continue a model of the same recipe that was fitted on older bars, and on none after `bars`."""
        ...


@runtime_checkable
class Composite(Protocol):
    """A model or recipe that combines others, as an ensemble does."""

    @property
    def parts(self) -> "tuple[Model, ...] | tuple[Recipe, ...]":
        """Models or recipes combined; parts are not composites themselves."""
        ...
