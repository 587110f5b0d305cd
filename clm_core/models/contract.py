"""Contract of every kind of model: a recipe fits a model to bars, and the model turns bars into positions.

Backtest, shadow testing and gate treat trees, forecasters and RL policies alike:

    recipe = XGBoostRecipe(XGBoostParams(max_depth=5))
    model = recipe.fit(bars, seed=7)
    model.positions(bars)      # shape (n_bars,), in [-1, 1]
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import FeatureMismatch, NotEnoughBars
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.own_features import FeatureOrigin
from clm_core.market.panel import Panel
from clm_core.market.timeframes import Calendar, Timeframe

Progress = Callable[[float], None]
"""Callback that receives the finished share of the work, 0..1; may be called from any thread."""

Change = Callable[[Floats], Floats]
"""Function from feature values to other values, both of shape (n_rows, n_features)."""


class TrainedOn(BaseModel):
    """Provenance of a model: the series, the only one the model accepts, and the seed of the fit."""

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
    gap_rules: int = 1
    """Rules of closures and outages of the training bars; release 0.1.0, without the field, had rules 1."""

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
            gap_rules=bars.gap_rules,
        )

    @classmethod
    def of_pool(cls, panel: Panel, seed: int) -> "TrainedOn":
        """Provenance of a pooled model: name of the pool, span and number of the bars of all members."""
        return cls(
            symbol=panel.name,
            timeframe=panel.timeframe,
            calendar=panel.calendar,
            start=min(member.start for member in panel).to_pydatetime(),
            end=max(member.end for member in panel).to_pydatetime(),
            bars=panel.rows,
            data_hash=panel.content_hash,
            seed=seed,
            gap_rules=panel.gap_rules,
        )

    def require_same_series(self, bars: Bars) -> None:
        own = (self.symbol, self.timeframe, self.calendar)
        given = (bars.symbol, bars.timeframe, bars.calendar)
        if own != given:
            raise FeatureMismatch(
                f"the model was fitted on {' '.join(own)} and cannot judge {' '.join(given)}: "
                "pass bars of the model's series, or train a model on the bars"
            )

    def accept(self, bars: Bars) -> Bars:
        """The bars under the rules of closures and outages of the training, so that a stored model gives the
        same answers in every release.

        Raises:
            FeatureMismatch: the bars are of another series.
        """
        self.require_same_series(bars)
        return bars.under(self.gap_rules)


class PluginOrigin(BaseModel):
    """A plug-in and the distribution that installs the plug-in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    distribution: str
    """Name in lower case, with hyphens."""
    version: str

    def __str__(self) -> str:
        return f"the plug-in {self.name} of {self.distribution} {self.version}"


class ModelCard(BaseModel):
    """Description of a model in a bundle (`model.json`), sufficient to load the model and to fit it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    model_type: ModelType
    plugin: PluginOrigin | None = None
    """Plug-in that fitted and loads the model; None unless the type is OTHER."""
    params: dict[str, Any]
    """`Recipe.describe()`: every training parameter with its effective value."""
    trained_on: TrainedOn
    train_metrics: dict[str, float]
    libraries: dict[str, str]
    """Installed versions the fit ran with, by distribution name."""
    bars_needed: int | None = None
    """`Model.bars_needed`; None in a card of release 0.1.0."""
    own_features: tuple[FeatureOrigin, ...] = ()
    """Own features of the model, with the digests of their source."""
    series: tuple[str, ...] = ()
    """Own series of the model, which come with the bars."""
    pool: tuple[TrainedOn, ...] = ()
    """Training bars of each member of a pooled model, whose `trained_on` is the pool's; empty for a model of
    one series."""

    def of_member(self, member: TrainedOn) -> "ModelCard":
        """Card of a member of a pooled model, as of a model of one series."""
        return self.model_copy(update={"trained_on": member, "pool": ()})


class Model(Protocol):
    """A fitted model. Immutable; safe to share between threads."""

    @property
    def model_type(self) -> ModelType: ...

    @property
    def trained_on(self) -> TrainedOn: ...

    @property
    def train_metrics(self) -> dict[str, float]:
        """Metrics of the fit on the training rows (in-sample and early-stopping)."""
        ...

    @property
    def learning_curve(self) -> tuple[float, ...]:
        """Validation loss after each step of the fit; empty for a model that was loaded."""
        ...

    @property
    def bars_needed(self) -> int | None:
        """Number of closed bars from which on more history changes no answer for the last bar.

        The position and the forecast of a bar are the same for every history that ends with the bar and has
        at least as many bars. Serving refuses fewer; a backtest takes what there is. A plug-in may leave the
        property out: the number is then derived from `features` and `horizon` of the training parameters, or
        measured when a bundle is saved. None, for a model of a plug-in not measured yet, refuses nothing.
        """
        ...

    def positions(self, bars: Bars) -> Floats:
        """Target exposure after each bar, shape (n_bars,), in [-1, 1].

        The value at bar t uses bars up to and including t and is executed at the open of t + 1. Rows
        without a full look-back (at the start, or after a gap) are 0.0. Never NaN.

        Raises:
            FeatureMismatch: the bars are of another symbol or timeframe than the model was fitted on.
        """
        ...

    def forecast(self, bars: Bars) -> Floats:
        """Probability, 0..1, of a price rise over the model's horizon, shape (n_bars,).

        NaN in rows without a full look-back, and everywhere for a model without forecasts.
        """
        ...

    def importances(self) -> dict[str, float]:
        """Share of each feature in the model's decisions, summing to 1; empty if unknown."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model's own files (no pickle) into an existing, empty folder."""
        ...


def require_bars_needed(model: Model, bars: int, call: str) -> None:
    """Refuse a window too short for the answer of the whole history.

    Args:
        bars: number of closed bars given.
        call: function to name in the error, `predict()`.

    Raises:
        NotEnoughBars: the window has fewer than `bars_needed` bars.
    """
    if model.bars_needed is None or bars >= model.bars_needed:
        return
    seen = model.trained_on
    days = math.ceil(model.bars_needed * (seen.end - seen.start) / timedelta(days=1) / seen.bars)
    raise NotEnoughBars(
        f"give {call} at least {model.bars_needed:,} closed bars; there are {bars:,}. Look-backs and "
        f"half-lives count bars: {model.bars_needed:,} bars of {seen.timeframe} are about {days:,} days of "
        f"{seen.symbol}. "
        "Where there are not so many, train with shorter half-lives (sizing.scale_half_life, "
        "sizing.smoothing_half_life) or fewer features"
    )


class Recipe(Protocol):
    """Validated training parameters and the procedure that fits models; immutable."""

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
    """A recipe whose models may continue from an older model."""

    @property
    def warm_start(self) -> bool:
        """True to continue from fold to fold of a walk-forward; the folds are then fitted in order."""
        ...

    def fit_after(self, older: Model, bars: Bars, seed: int, progress: Progress | None = None) -> Model:
        """Continue a model of the same recipe, fitted on older bars only (none after `bars`)."""
        ...


@runtime_checkable
class FollowsFolds(Recipe, Protocol):
    """A recipe whose final fit takes its length from the folds of the walk-forward."""

    def following_folds(self, metrics: Sequence[Mapping[str, float]]) -> Recipe:
        """Recipe of the final fit.

        Args:
            metrics: training metrics of the fold's models, at least one.
        """
        ...

    def as_fitted(self, metrics: Mapping[str, float]) -> Recipe:
        """Recipe that repeats the final fit of a stored version.

        Args:
            metrics: training metrics of the version.
        """
        ...


@runtime_checkable
class StatesBarsToFit(Recipe, Protocol):
    """A recipe with a known need of bars: a window too short for a fit is named before the training."""

    def bars_to_fit(self, bars: Bars) -> int:
        """Least number of bars, without an outage, for a fit.

        Args:
            bars: training bars; a recipe may choose the horizon by the bars.
        """
        ...


@runtime_checkable
class Pooling(Recipe, Protocol):
    """A recipe able to fit a single model to the bars of several symbols."""

    def fit_panel(self, panel: Panel, seed: int, progress: Progress | None = None) -> "tuple[Model, ...]":
        """Train on all bars of the members together.

        Rows are divided by time over all members: no label of a row fitted ends after the first row that
        stops the fit, of whichever symbol.

        Returns:
            A view of the one fitted model for each member, in the order of the panel. Each view obeys the
            contract of a model of the member's series.

        Raises:
            NotEnoughBars: too few rows with features and labels to train on.
        """
        ...


@runtime_checkable
class Composite(Protocol):
    """A model or recipe that combines several models or recipes, as an ensemble does."""

    @property
    def parts(self) -> "tuple[Model, ...] | tuple[Recipe, ...]":
        """Models or recipes combined; parts are not composites themselves."""
        ...


@runtime_checkable
class ReadsFeatures(Protocol):
    """A model whose positions follow from features that can be changed, to see what the positions rely on."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the features."""
        ...

    def with_changed_inputs(self, change: Change) -> Model:
        """The model with changed values of its features, on any bars; training data stay as they were.

        Args:
            change: function from the values of the bars with every feature, in the order of `inputs`, to
                other values; values that stay the same leave the positions as they are.
        """
        ...


@runtime_checkable
class ExpectsReturns(Protocol):
    """A model that offers expected returns, for the threshold of the sizing."""

    def expected_return(self, bars: Bars) -> Floats:
        """Simple return expected over the model's horizon after each bar, shape (n_bars,); NaN where unknown.

        The value at bar t uses bars up to and including t.
        """
        ...


@runtime_checkable
class ForecastsQuantiles(Protocol):
    """A model that forecasts the distribution of the return."""

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """Levels of the quantiles, 0..1 exclusive, ascending."""
        ...

    def quantiles(self, bars: Bars) -> Floats:
        """Quantiles of the simple return over the model's horizon after each bar, shape (n_bars, n_levels);
        NaN where unknown.

        The values at bar t use bars up to and including t.
        """
        ...


@runtime_checkable
class OffersConvictions(Protocol):
    """A model of sized models, as an ensemble: its signal before any sizing."""

    @property
    def bars_by_convictions(self) -> int | None:
        """Closed bars from which on more history changes no conviction and no forecast of the last bar; None
        if unknown."""
        ...

    def convictions(self, bars: Bars) -> Floats:
        """Signal after each bar, shape (n_bars,), in [-1, 1], without the sizing of the parts."""
        ...
