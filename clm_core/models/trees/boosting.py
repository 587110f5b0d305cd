"""Gradient-boosted trees: the parts of a model that XGBoost and LightGBM share.

The trees give p, the probability that the price rises over the next `horizon` bars. The position follows
from p by a fixed rule:

- signal: sign(p - 1/2) where |p - 1/2| >= `threshold`, else 0; also 0 in rows without a full look-back;
  with `long_only`, -1 becomes 0.
- position: the mean of the last `horizon` signals of the unbroken stretch, signals before the start of the
  stretch counting as 0. Each signal is held for the horizon the trees were trained on: holdings overlap,
  turnover is low, and memory is finite: the last `bars_needed` bars, the memory of the features plus the
  horizon, give the same position as the whole history.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from clm_core.domain.errors import FeatureMismatch, NotEnoughBars
from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import FEATURES, compute_features, memory_of, select_features
from clm_core.market.labels import direction, ties
from clm_core.market.signals import accuracy, hold_signals
from clm_core.market.splits import bars_for_tail, purged_tail
from clm_core.models.contract import ModelCard, Progress, TrainedOn
from clm_core.models.params import FeatureNames, TrainingParams, require_features

MIN_ROWS = 200
"""Minimum number of labelled rows to fit on; a quarter as many are needed for early stopping. On fewer
rows trees learn the noise."""
MAX_BINS = 63
"""Histogram bins per feature: splits finer than a 63rd of the rows carry no information on noisy returns."""


class BoostingParams(TrainingParams):
    """Training parameters that both libraries share."""

    horizon: Annotated[int, Between(6, 72, log=True)] = Field(default=24, ge=1, le=500)
    """Bars over which the price is predicted and each signal is held; 1..500."""
    threshold: Annotated[float, Between(0.0, 0.06)] = Field(default=0.02, ge=0, lt=0.5)
    """Minimum distance of the probability from 1/2 for a signal; 0..0.5."""
    long_only: bool = False
    """True to stay flat instead of selling short when prices are expected to fall."""
    features: FeatureNames = Field(default_factory=lambda: tuple(FEATURES), min_length=1)
    """Names of the features used (as text: separated by commas); default all."""
    validation_fraction: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the labelled rows, the newest, used for early stopping; 0..0.5."""
    rounds: int = Field(default=500, ge=1, le=10_000)
    """Maximum number of trees; 1..10,000."""
    early_stopping_rounds: int = Field(default=100, ge=1, le=10_000)
    """Trees without a better validation loss after which boosting stops; 1..10,000."""
    learning_rate: Annotated[float, Between(0.005, 0.1, log=True)] = Field(default=0.02, gt=0, le=1)
    """Shrinkage: share of each tree's output added to the sum; 0..1."""
    min_child_weight: Annotated[float, Between(5.0, 200.0, log=True)] = Field(default=50.0, ge=0)
    """Minimum sum of hessians in a leaf; a row weighs at most 1/4, so 50 requires at least 200 rows."""
    subsample: Annotated[float, Between(0.3, 1.0)] = Field(default=0.5, gt=0, le=1)
    """Share of the rows sampled for each tree; 0..1."""
    colsample: Annotated[float, Between(0.3, 1.0)] = Field(default=0.5, gt=0, le=1)
    """Share of the features sampled for each tree; 0..1."""
    reg_lambda: Annotated[float, Between(0.1, 100.0, log=True)] = Field(default=10.0, ge=0)
    """L2 penalty on leaf values, in units of summed hessians."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Labelled rows for training or validation."""

    values: Floats
    """Features, shape (n_rows, n_features)."""
    rises: Floats
    """1.0 where the price rises over the horizon, else 0.0, shape (n_rows,)."""


class Trees(Protocol):
    """Parsed trees of either library, made from the content of the bundle's file."""

    FILE: ClassVar[str]
    """Name of the file in the bundle."""

    def __init__(self, raw: bytes) -> None: ...

    @property
    def features(self) -> tuple[str, ...]: ...

    @property
    def rounds(self) -> int: ...

    def probability(self, values: Floats) -> Floats: ...

    def gains(self) -> dict[str, float]: ...


class Boosted(NamedTuple):
    """Result of a library's training run."""

    raw: bytes
    """Trees in the library's own file format."""
    losses: list[float]
    """Validation log loss after each round."""
    metrics: dict[str, float]
    """Metrics specific to the library."""


@dataclass(frozen=True, eq=False)
class BoostedModel:
    """A fitted model of either library; the module's docstring defines the positions."""

    params: BoostingParams
    trained_on: TrainedOn
    train_metrics: dict[str, float]
    raw: bytes
    """Trees in the library's own file format: the content of the file in the bundle."""
    trees: Trees
    learning_curve: tuple[float, ...] = ()

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    @property
    def bars_needed(self) -> int:
        # the oldest of the signals held is that of the bar `horizon - 1` before the last
        return memory_of(self.params.features) + self.params.horizon

    def positions(self, bars: Bars) -> Floats:
        bars = self.trained_on.accept(bars)
        return hold_signals(self._signals(self.forecast(bars)), bars, self.params.horizon)

    def forecast(self, bars: Bars) -> Floats:
        bars = self.trained_on.accept(bars)
        table = compute_features(bars, self.params.features)
        probability = np.full(len(bars), np.nan)
        if table.complete.any():
            probability[table.complete] = self.trees.probability(table.values[table.complete])
        return probability

    def importances(self) -> dict[str, float]:
        gains = self.trees.gains()
        total = sum(gains.values())
        return {name: gain / total for name, gain in gains.items() if gain > 0}

    def save(self, folder: Path) -> None:
        (folder / self.trees.FILE).write_bytes(self.raw)

    def _signals(self, probability: Floats) -> NDArray[np.int64]:
        edge = probability - 0.5
        # NaN compares false: a row without a forecast gives no signal
        signals = np.where(np.abs(edge) >= self.params.threshold, np.sign(edge), 0.0).astype(np.int64)
        return np.maximum(signals, 0) if self.params.long_only else signals


@dataclass(frozen=True)
class BoostingRecipe(ABC):
    """Recipe for boosted trees; a subclass for each library grows the trees."""

    trees: ClassVar[type[Trees]]
    params: BoostingParams

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    def describe(self) -> dict[str, Any]:
        return self.params.model_dump(mode="json")

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> BoostedModel:
        """Boost on the older rows until the newest, purged `validation_fraction` of them stops improving.

        The training metrics are rows and log loss of both samples, rows left out as ties (the price is the
        same after the horizon), validation accuracy, and the validation log loss of a constant forecast (the
        fitted rows' share of rises), an upper bound for useful trees.
        XGBoost adds a flag for the use of a GPU.
        """
        fit, validation, n_ties = _samples(bars, self.params)
        report = progress or (lambda done: None)
        # the libraries hold seeds in 31 bits
        boosted = self.boost(fit, validation, seed % 2**31, report)
        trees = self.trees(boosted.raw)
        report(1.0)
        metrics = _metrics(trees, fit, validation) | {"ties": float(n_ties)} | boosted.metrics
        return BoostedModel(
            self.params, TrainedOn.of(bars, seed), metrics, boosted.raw, trees, tuple(boosted.losses)
        )

    @abstractmethod
    def boost(self, fit: Sample, validation: Sample, seed: int, progress: Progress) -> Boosted:
        """Grow trees on the first sample until the loss on the second stops improving."""


def load_trees(
    folder: Path, card: ModelCard, params_type: type[BoostingParams], trees_type: type[Trees]
) -> BoostedModel:
    """Model of a verified bundle.

    Raises:
        FeatureMismatch: the trees were fitted on features that this release does not compute.
    """
    require_features(card.params["features"])
    params = params_type.parse(card.params)
    raw = (folder / trees_type.FILE).read_bytes()
    trees = trees_type(raw)
    if trees.features != params.features:
        raise FeatureMismatch(
            f"the trees were fitted on {', '.join(trees.features)}, in this order, but the model's card "
            f"names {', '.join(params.features)}: retrain the model"
        )
    return BoostedModel(params, card.trained_on, card.train_metrics, raw, trees)


def _samples(bars: Bars, params: BoostingParams) -> tuple[Sample, Sample, int]:
    """Rows to fit on, newer rows for early stopping, purged by the end of the labels, and number of ties."""
    table = compute_features(bars, params.features)
    labels = direction(bars, params.horizon)
    label_end = np.where(table.complete, labels.end, -1)
    needed = _bars_needed(params)
    try:
        tail = purged_tail(label_end, params.validation_fraction, embargo=0)
    except NotEnoughBars as error:
        raise NotEnoughBars(f"{bars.symbol} {bars.timeframe}: {error}", needed) from error
    fit, validation = tail.fit, tail.validation
    if len(fit) < MIN_ROWS or len(validation) < MIN_ROWS // 4:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: {len(bars)} bars leave {len(fit)} rows to fit on and "
            f"{len(validation)} to validate on; {MIN_ROWS} and {MIN_ROWS // 4} are needed. "
            "Give more days of bars, a shorter horizon or fewer folds",
            needed,
        )
    if len(np.unique(labels.values[fit])) < 2:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: every row to fit on has the same label, so there is nothing "
            "to learn. Give more days of bars or a shorter horizon"
        )
    values = table.values
    n_ties = int(np.count_nonzero(table.complete & ties(bars, params.horizon)))
    fitted = Sample(values[fit], labels.values[fit])
    return fitted, Sample(values[validation], labels.values[validation]), n_ties


def _bars_needed(params: BoostingParams) -> int:
    look_back = max(feature.warm_up for feature in select_features(params.features))
    return bars_for_tail(MIN_ROWS, MIN_ROWS // 4, params.validation_fraction, look_back, params.horizon)


def _metrics(trees: Trees, fit: Sample, validation: Sample) -> dict[str, float]:
    fitted, unseen = trees.probability(fit.values), trees.probability(validation.values)
    constant = np.full(len(unseen), fit.rises.mean())
    return {
        "fit_rows": float(len(fitted)),
        "validation_rows": float(len(unseen)),
        "rounds": float(trees.rounds),
        "fit_log_loss": _log_loss(fitted, fit.rises),
        "validation_log_loss": _log_loss(unseen, validation.rises),
        "validation_log_loss_of_constant": _log_loss(constant, validation.rises),
        "validation_accuracy": accuracy(unseen - 0.5, validation.rises - 0.5),
    }


def _log_loss(probability: Floats, rises: Floats) -> float:
    """Mean of -log of the probability given to the observed outcome; a coin scores 0.693."""
    return float(-np.mean(np.log(np.where(rises > 0.5, probability, 1 - probability))))
