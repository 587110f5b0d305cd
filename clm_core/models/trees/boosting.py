"""Gradient-boosted trees: the parts of a model that XGBoost and LightGBM share.

The trees learn a label (`targets`) on the older rows. The newest labelled rows, purged, are divided into
two parts, purged again: the older three quarters stop the boosting early, the newest quarter calibrates
the answers, so that no row decides twice. Without calibration all of them stop the boosting.

The final fit of a version does not stop early: it grows the median number of trees of the folds of its
walk-forward (`following_folds`), because a single tail may stop the boosting at the first tree. The newest
rows calibrate and measure the skill as before, and take no part in the fit.

- signal: the strength of a score over twice its root mean square on both parts, clipped to [-1, 1]; 0 where
  the probability is less than `threshold` from even, and in rows without a full look-back; with `long_only`,
  negative signals become 0.
- position: the mean of the last `horizon` signals of the unbroken stretch, signals before the start of the
  stretch counting as 0. Each signal is held for the horizon the trees were trained on: holdings overlap,
  turnover is low, and memory is finite: the last `bars_needed` bars give the same position as the whole
  history.

The label `sign` is the rule of models made before the other labels existed, and keeps their answers to the
bit: the signal is sign(p - 1/2) where |p - 1/2| >= `threshold`, p as the trees give it.
"""

import math
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from clm_core.domain.costs import Costs
from clm_core.domain.errors import (
    BundleCorrupt,
    FeatureMismatch,
    InvalidTrainingParams,
    NotEnoughBars,
    SeriesMissing,
)
from clm_core.domain.recipes import REGIME
from clm_core.domain.search_space import Between, OneOf
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import FEATURES, FeatureTable, compute_features, memory_of, select_features
from clm_core.market.labels import Labels, direction, return_unit, ties, volatility_scaled_return
from clm_core.market.panel import Panel, thinned
from clm_core.market.regimes import STATES
from clm_core.market.sample_weights import age_weights, average_uniqueness, regime_weights
from clm_core.market.signals import accuracy, hold_convictions, hold_signals
from clm_core.market.splits import Rows, bars_for_tail, purged_tail
from clm_core.models.contract import Change, ModelCard, Progress, TrainedOn
from clm_core.models.kind import OlderParams
from clm_core.models.params import (
    FeatureNames,
    OptionalRegime,
    TrainingParams,
    no_regime_of_pool,
    require_features,
)
from clm_core.models.skill import skill_metrics
from clm_core.models.trees.calibration import Curve, base_prior, fit_curve
from clm_core.models.trees.horizon import LADDER, choose_horizon, cost_share
from clm_core.models.trees.targets import (
    LOGISTIC_SCALE,
    Label,
    Reading,
    Targets,
    log_odds,
    memory,
    rule_memory,
    side_of_rule,
    targets_of,
)

MIN_ROWS = 200
"""Minimum number of labelled rows to fit on; a quarter as many are needed for early stopping. On fewer
rows trees learn the noise."""
MIN_CALIBRATION_ROWS = 15
"""Minimum number of rows to calibrate on; the priors decide where rows are few."""
CALIBRATION_SHARE = 1 / 4
"""Share of the newest rows that calibrate; the older ones stop the boosting."""
ROWS_AT_ONCE = 65_536
"""Rows answered at once, whose features are copied."""
READING = "reading.json"
"""File of the bundle with the reading of the trees' answers."""
LEAST_DEVIATION = 1e-9
"""Deviation of residuals that are all alike, in standard deviations of the horizon's return."""
LEAST_STRENGTH = 1e-6
"""Log-odds up to which answers differ by rounding alone."""
ROUNDS_OF_FOLDS = "rounds_of_folds"
"""Training metric of a fit with a fixed number of trees."""
SIZING = Sizing(smoothing_half_life=72.0, scale_half_life=40.0, no_trade_band=0.8)
"""Trees fitted on a year of bars change their minds often: docs/reference/recipes.md has the choice."""
DEFAULT_LABEL: Label = "volatility_scaled_return"
LARGEST_HESSIAN = 1 / 4
"""Hessian of a row at even odds."""
MAX_BINS = 63
"""Histogram bins per feature: splits finer than a 63rd of the rows carry no information on noisy returns."""


class BoostingParams(TrainingParams):
    """Training parameters that both libraries share."""

    label: Annotated[Label, OneOf(("volatility_scaled_return", "direction", "triple_barrier"))] = (
        DEFAULT_LABEL
    )
    """Label of the trees: volatility_scaled_return, direction, triple_barrier, meta (a filter of the trend
    rule), or sign (the rule of versions made before these labels)."""
    horizon: Annotated[
        Annotated[int, Field(ge=1, le=500)] | Literal["auto"], OneOf(("auto", 6, 12, 24, 48, 96))
    ] = "auto"
    """Bars of the prediction and of the holding of each signal, 1..500; auto for the shortest of 6 to
    168 bars such that a round trip costs at most 5 % of the mean absolute move of the training bars."""
    round_trip_bps: float | None = Field(default=None, ge=0, lt=10_000)
    """Cost of entry and exit in basis points, for horizon=auto; default: costs in the settings."""
    barrier: Annotated[float, Between(0.5, 2.0)] = Field(default=1.0, gt=0, le=10)
    """Distance of the barriers of triple_barrier and meta, in standard deviations of the horizon's return."""
    uniqueness_weights: bool = True
    """Rows weigh by the average uniqueness of their labels: overlapping labels count less."""
    age_half_life: float = Field(default=0.0, ge=0)
    """Bars after which a row weighs half; 0 for equal weights at every age."""
    regime: OptionalRegime = None
    """Regime whose rows weigh four times as much as others in the trees: calm, turbulent, or none; early
    stopping and calibration weigh all rows alike."""
    calibrate: bool = True
    """Fit the probability on the newest, purged rows, which then take no part in early stopping."""
    centre_horizons: int = Field(default=15, ge=0, le=500)
    """Horizons over whose mean the trees' answers are centred, besides the base rate; 0 for the base rate
    alone. Without effect on meta."""
    threshold: Annotated[float, Between(0.0, 0.03)] = Field(default=0.0, ge=0, lt=0.5)
    """Minimum distance of the probability from even odds, without the drift of the training bars, for a
    signal; 0..0.5."""
    long_only: bool = False
    """True to stay flat instead of selling short when prices are expected to fall."""
    features: FeatureNames = Field(default_factory=lambda: tuple(FEATURES), min_length=1)
    """Names of the features used (as text: separated by commas); default all."""
    validation_fraction: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the labelled rows, the newest, used for early stopping and calibration; 0..0.5."""
    rounds: int = Field(default=500, ge=1, le=10_000)
    """Maximum number of trees; 1..10,000."""
    early_stopping_rounds: int = Field(default=100, ge=1, le=10_000)
    """Trees without a better validation loss after which boosting stops; 1..10,000."""
    learning_rate: Annotated[float, Between(0.005, 0.1, log=True)] = Field(default=0.02, gt=0, le=1)
    """Shrinkage: share of each tree's output added to the sum; 0..1."""
    min_child_weight: Annotated[float, Between(5.0, 200.0, log=True)] = Field(default=50.0, ge=0)
    """Minimum sum of hessians in a leaf; a row weighs at most 1/4, so 50 requires about 200 rows."""
    leaf_share: float = Field(default=0.25, gt=0, le=1)
    """Largest share of the rows sampled for a tree that `min_child_weight` may require in a leaf; 0..1. With
    few rows no tree could split otherwise."""
    subsample: Annotated[float, Between(0.3, 1.0)] = Field(default=0.5, gt=0, le=1)
    """Share of the rows sampled for each tree; 0..1."""
    colsample: Annotated[float, Between(0.3, 1.0)] = Field(default=0.5, gt=0, le=1)
    """Share of the features sampled for each tree; 0..1."""
    reg_lambda: Annotated[float, Between(0.1, 100.0, log=True)] = Field(default=10.0, ge=0)
    """L2 penalty on leaf values, in units of summed hessians."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.label == "sign" and (self.calibrate or self.horizon == "auto"):
            raise ValueError(
                "label=sign is the rule of versions made before: give calibrate=false and a horizon in bars"
            )
        return self

    @property
    def learns_returns(self) -> bool:
        """True for a label learnt by regression."""
        return self.label == "volatility_scaled_return"

    @property
    def curvature(self) -> float:
        """Largest hessian of a row over that of a probability: scales parameters in units of hessians."""
        return 4.0 if self.learns_returns else 1.0

    def leaf_weight(self, rows: int) -> float:
        """Least sum of hessians in a leaf of trees fitted on so many rows."""
        max_hessian = self.leaf_share * self.subsample * rows * LARGEST_HESSIAN
        return min(self.min_child_weight, max_hessian) * self.curvature

    def with_costs(self, costs: Costs) -> Self:
        """Parameters with the cost of a round trip filled in, where the cost chooses the horizon."""
        if self.horizon != "auto" or self.round_trip_bps is not None:
            return self
        return self.model_copy(update={"round_trip_bps": 2 * (costs.fee_bps + costs.slippage_bps)})


OLDER_PARAMS = OlderParams(
    "label",
    {
        "label": "sign",
        "horizon": 24,
        "threshold": 0.02,
        "round_trip_bps": None,
        "barrier": 1.0,
        "uniqueness_weights": False,
        "age_half_life": 0.0,
        "calibrate": False,
        "centre_horizons": 0,
    },
)
"""Meaning of parameters stored before there was a choice of labels."""
OLDER_LEAVES = OlderParams("leaf_share", {"leaf_share": 1.0})
"""Meaning of parameters stored before leaves were limited to a share of the rows."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Labelled rows for training or validation."""

    values: Floats
    """Features, shape (n_rows, n_features)."""
    target: Floats
    """Label: 1.0 or 0.0, or a scaled return, shape (n_rows,)."""
    weight: Floats | None = None
    """Weights with mean 1, shape (n_rows,); None for equal weights."""

    @property
    def mean(self) -> float:
        """Weighted mean of the labels."""
        return float(np.average(self.target, weights=self.weight))


class Trees(Protocol):
    """Parsed trees of either library, made from the content of the bundle's file."""

    FILE: ClassVar[str]
    """Name of the file in the bundle."""

    def __init__(self, raw: bytes) -> None: ...

    @property
    def features(self) -> tuple[str, ...]: ...

    @property
    def rounds(self) -> int: ...

    def answers(self, values: Floats) -> Floats:
        """Probability of a label of 1.0, or the scaled return, shape (n_rows,)."""
        ...

    def gains(self) -> dict[str, float]: ...


class Boosted(NamedTuple):
    """Result of a library's training run."""

    raw: bytes
    """Trees in the library's own file format."""
    losses: list[float]
    """Validation loss after each round."""
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
    reading: Reading | None = None
    """Reading of the trees' answers; None for the label `sign`."""
    learning_curve: tuple[float, ...] = ()
    change: Change | None = None
    """Change of the feature values; None for the values themselves."""

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    @property
    def bars_needed(self) -> int:
        # the oldest of the signals held is that of the bar `horizon - 1` before the last
        if self.reading is None:
            assert self.params.horizon != "auto"
            return memory_of(self.params.features) + self.params.horizon
        scores = memory(self.params.label, self.params.features, self.trained_on.timeframe)
        return scores + self.reading.centre_bars + self.reading.horizon

    def positions(self, bars: Bars) -> Floats:
        bars = self.trained_on.accept(bars)
        answers, side = _answers(self.trees, self.params, bars, self.change)
        if self.reading is None:
            assert self.params.horizon != "auto"
            return hold_signals(self._signs(answers), bars, self.params.horizon)
        strength = self.reading.strength_of(self.reading.score(answers, side, bars), side)
        signals = self.reading.signal(strength, self.params.threshold, self.params.long_only)
        return hold_convictions(signals, bars, self.reading.horizon)

    def forecast(self, bars: Bars) -> Floats:
        bars = self.trained_on.accept(bars)
        answers, side = _answers(self.trees, self.params, bars, self.change)
        if self.reading is None:
            return answers.copy()
        return self.reading.rise.probability(self.reading.score(answers, side, bars))

    def expected_return(self, bars: Bars) -> Floats:
        """Simple return over the horizon, less the drift of the training bars, shape (n_bars,).

        NaN in rows without a full look-back, and everywhere for the label `sign`, which has no such forecast.
        """
        bars = self.trained_on.accept(bars)
        if self.reading is None:
            return np.full(len(bars), np.nan)
        answers, side = _answers(self.trees, self.params, bars, self.change)
        strength = self.reading.strength_of(self.reading.score(answers, side, bars), side)
        return self.reading.expected_return(strength, return_unit(bars))

    def importances(self) -> dict[str, float]:
        gains = self.trees.gains()
        total = sum(gains.values())
        return {name: gain / total for name, gain in gains.items() if gain > 0}

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.params.features

    def with_changed_inputs(self, change: Change) -> "BoostedModel":
        return replace(self, change=change)

    def save(self, folder: Path) -> None:
        (folder / self.trees.FILE).write_bytes(self.raw)
        if self.reading is not None:
            (folder / READING).write_text(self.reading.model_dump_json(indent=2))

    def _signs(self, probability: Floats) -> NDArray[np.int64]:
        edge = probability - 0.5
        # NaN compares false: a row without a forecast gives no signal
        signals = np.where(np.abs(edge) >= self.params.threshold, np.sign(edge), 0.0).astype(np.int64)
        return np.maximum(signals, 0) if self.params.long_only else signals


@dataclass(frozen=True)
class BoostingRecipe(ABC):
    """Recipe for boosted trees; a subclass for each library grows the trees."""

    trees: ClassVar[type[Trees]]
    params: BoostingParams
    fixed_rounds: int | None = None
    """Number of trees to grow; None to stop early."""

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    @property
    def regime(self) -> str | None:
        """Regime that the fit is weighted towards; None for equal weights."""
        return self.params.regime

    def describe(self) -> dict[str, Any]:
        # as before there were regimes where none is named: the same card, and the same recipe
        unset = {REGIME} if self.params.regime is None else None
        return self.params.model_dump(mode="json", exclude=unset)

    def following_folds(self, metrics: Sequence[Mapping[str, float]]) -> Self:
        """Recipe of the final fit: as many trees as the median fold, rounded down."""
        return replace(self, fixed_rounds=max(1, int(np.median([each["rounds"] for each in metrics]))))

    def as_fitted(self, metrics: Mapping[str, float]) -> Self:
        """Recipe that fits a stored version again; a version of an older release stopped early."""
        fixed = metrics.get(ROUNDS_OF_FOLDS)
        return replace(self, fixed_rounds=None if fixed is None else int(fixed))

    def bars_to_fit(self, bars: Bars) -> int:
        return _bars_to_fit(bars, self.params)

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> BoostedModel:
        """Boost on the older rows until the newest, purged rows stop improving, and calibrate.

        Training metrics: rows of each part and the number of labels without overlap that tell as much as the
        fitted ones, rows left out as ties (the price is the same after the horizon), the horizon and the
        cost of a round trip as a share of the mean absolute move over it, the loss of both samples (log loss,
        or mean squared error of scaled returns) and of a constant forecast (the fitted rows' mean), an upper
        bound for useful trees, the validation accuracy, the skill against the constant (1 - loss / loss of
        the constant) with its standard error, and the log loss of the probability of a rise before and after
        calibration. A fit with a fixed number of trees names the number, one towards a regime the fitted rows
        of the regime and their share of the weight, and XGBoost a use of a GPU.
        """
        # a series is a panel with a single member
        [model] = self.fit_panel(Panel(bars.symbol, (bars,)), seed, progress)
        return model

    def fit_panel(
        self, panel: Panel, seed: int, progress: Progress | None = None
    ) -> tuple[BoostedModel, ...]:
        """`fit` on the rows of all members together: the trees and the reading of the answers are shared.

        Rows are thinned (`panel.thinned`) and divided by time over all members. horizon=auto takes the
        longest choice of the members.
        """
        _require_regimes(panel, self.params)
        horizon = _horizon(panel, self.params)
        material = _material(panel, self.params, horizon)
        report = progress or (lambda done: None)
        # the libraries hold seeds in 31 bits
        boosted = self.boost(material.fit, material.validation, seed % 2**31, report)
        trees = self.trees(boosted.raw)
        report(1.0)
        reading = None
        answers = [_answers_of(trees, each.member) for each in material.parts]
        metrics = _metrics(trees, answers, material, self.params) | boosted.metrics
        metrics |= _regime_metrics(material, self.params)
        if self.fixed_rounds is not None:
            metrics[ROUNDS_OF_FOLDS] = float(self.fixed_rounds)
        if self.params.label != "sign":
            reading, scores = _reading(self.params, horizon, material, answers)
            metrics |= _reading_metrics(self.params, material, reading, scores)
        return tuple(
            BoostedModel(
                self.params,
                TrainedOn.of(bars, seed),
                metrics,
                boosted.raw,
                trees,
                reading,
                tuple(boosted.losses),
            )
            for bars in panel
        )

    @abstractmethod
    def boost(self, fit: Sample, validation: Sample, seed: int, progress: Progress) -> Boosted:
        """Grow `fixed_rounds` trees on the first sample, or until the loss on the second stops improving."""


def load_trees(
    folder: Path, card: ModelCard, params_type: type[BoostingParams], trees_type: type[Trees]
) -> BoostedModel:
    """Model of a verified bundle.

    Raises:
        FeatureMismatch: the trees were fitted on features unknown to this release.
        BundleCorrupt: the reading of the trees' answers is missing or not of this release.
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
    reading = None if params.label == "sign" else _read_reading(folder)
    return BoostedModel(params, card.trained_on, card.train_metrics, raw, trees, reading)


def _read_reading(folder: Path) -> Reading:
    try:
        return Reading.model_validate_json((folder / READING).read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleCorrupt(
            f"{READING}, the reading of the trees' answers, is missing or not of this release: load the "
            "bundle with the release that wrote it, or train the model again"
        ) from error


def _horizon(panel: Panel, params: BoostingParams) -> int:
    return max(_horizon_of(bars, params) for bars in panel)


def _horizon_of(bars: Bars, params: BoostingParams, n_bars: int | None = None) -> int:
    """Horizon of a member, as of `n_bars` training bars in all: shorter than the chosen one where that would
    leave too few rows to fit on."""
    if params.horizon != "auto":
        return params.horizon
    if params.round_trip_bps is None:
        raise InvalidTrainingParams(
            "horizon=auto chooses by the cost of a round trip: give round_trip_bps, or make the recipe with "
            "the costs of a market"
        )
    length = len(bars) if n_bars is None else n_bars
    chosen = choose_horizon(bars, params.round_trip_bps, length).bars
    within = [each for each in LADDER if each <= chosen and _bars_needed(bars, params, each) <= length]
    return max(within, default=LADDER[0])


@dataclass(frozen=True, eq=False)
class _Member:
    """Training bars of a member with labels, and the rows of each part of a fit."""

    bars: Bars
    values: Floats
    """Features, shape (n_bars, n_features)."""
    known: NDArray[np.bool_]
    """Rows with every feature and the rule's direction, shape (n_bars,)."""
    targets: Targets
    at: Rows
    """Row of each bar on the common axis of time, shape (n_bars,)."""
    label_end: Rows
    """Row of the last bar of each label, shape (n_bars,); -1 for rows without label and rows thinned out."""
    ties: int
    """Rows left out because the price is the same after the horizon."""

    @property
    def end_at(self) -> Rows:
        """`label_end` on the common axis, shape (n_bars,)."""
        return np.where(self.label_end >= 0, self.at[self.label_end], -1)


@dataclass(frozen=True, eq=False)
class _Parts:
    """Rows of a member in each part of a fit."""

    member: _Member
    fit: Rows
    validation: Rows
    calibration: Rows
    """Rows for calibration; without calibration, the rows for early stopping."""
    uniqueness: Floats
    """Average uniqueness of the fitted labels."""


@dataclass(frozen=True, eq=False)
class _Material:
    """Training bars divided into the three parts of a fit."""

    fit: Sample
    validation: Sample
    """Rows for early stopping."""
    parts: tuple[_Parts, ...]
    """Rows by member."""

    @property
    def ties(self) -> int:
        return sum(each.member.ties for each in self.parts)

    @property
    def independent(self) -> float:
        """Number of labels without overlap equal in information to the fitted labels; labels of several
        members at the same moments count once."""
        return max(float(each.uniqueness.sum()) for each in self.parts)

    @property
    def independent_of_validation(self) -> float:
        """`independent` for the validation rows."""
        ends = ((each.validation, each.member.label_end[each.validation]) for each in self.parts)
        return max(float(average_uniqueness(rows, end).sum()) for rows, end in ends)


def _material(panel: Panel, params: BoostingParams, horizon: int) -> _Material:
    """Rows to fit on, newer rows for early stopping, the newest for calibration, each purged by label end."""
    members = [_member(panel, number, params, horizon) for number in range(len(panel))]
    rows = _divided(panel, params, members)
    parts = tuple(
        _Parts(member, *own, average_uniqueness(own[0], member.label_end[own[0]]))
        for member, own in zip(members, rows, strict=True)
    )
    target = _joined([each.member.targets.labels.values[each.fit] for each in parts])
    if len(np.unique(target)) < 2:
        raise NotEnoughBars(
            f"{panel.name} {panel.timeframe}: every row to fit on has the same label, so there is nothing "
            "to learn. Give more days of bars or a shorter horizon"
        )
    fit, validation = (
        Sample(
            _joined([_taken(each.member.values, rows) for each, rows in chosen]),
            _joined([each.member.targets.labels.values[rows] for each, rows in chosen]),
        )
        for chosen in ([(each, each.fit) for each in parts], [(each, each.validation) for each in parts])
    )
    return _Material(Sample(fit.values, fit.target, _weights(parts, params)), validation, parts)


def _joined(parts: Sequence[Floats]) -> Floats:
    """The parts one after another; a single part itself, since a million bars have 0.3 GB of features."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _taken(values: Floats, rows: Rows) -> Floats:
    """Ascending rows of values; a view of consecutive rows."""
    follow = len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1
    return values[rows[0] : rows[-1] + 1] if follow else values[rows]


def _member(panel: Panel, number: int, params: BoostingParams, horizon: int) -> _Member:
    bars = panel.members[number]
    table = compute_features(bars, params.features)
    targets = targets_of(bars, params.label, horizon, params.barrier)
    known = _known(table, targets.side)
    return _Member(
        bars=bars,
        values=table.values,
        known=known,
        targets=targets,
        at=np.searchsorted(panel.time, bars.time),
        label_end=np.where(known & thinned(panel, number), targets.labels.end, -1),
        ties=int(np.count_nonzero(known & ties(bars, horizon))),
    )


class _LastAnswers(NamedTuple):
    """Answers computed last in a thread: positions and forecasts of the same bars follow each other."""

    of: tuple[weakref.ref[Any], ...]
    """Trees, parameters and bars."""
    change: Change | None
    answers: Floats
    side: Floats | None


_last = threading.local()


def _answers(
    trees: Trees, params: BoostingParams, bars: Bars, change: Change | None
) -> tuple[Floats, Floats | None]:
    """The trees' answers, NaN in rows without a full look-back, and the rule's side, shape (n_bars,);
    read-only."""
    last: _LastAnswers | None = getattr(_last, "answers", None)
    if last is not None and last.change is change:
        same = (one() is other for one, other in zip(last.of, (trees, params, bars), strict=True))
        if all(same):
            return last.answers, last.side
    table = compute_features(bars, params.features).changed(change)
    side = side_of_rule(bars) if params.label == "meta" else None
    answers = _answers_to(trees, table.values, _known(table, side))
    for array in (answers, side):
        if array is not None:
            array.setflags(write=False)
    _last.answers = _LastAnswers(tuple(map(weakref.ref, (trees, params, bars))), change, answers, side)
    return answers, side


def _answers_to(trees: Trees, values: Floats, known: NDArray[np.bool_]) -> Floats:
    """The trees' answers, NaN in rows not known, shape (n_rows,)."""
    answers = np.full(len(values), np.nan)
    for first in range(0, len(values), ROWS_AT_ONCE):
        block = slice(first, first + ROWS_AT_ONCE)
        if known[block].any():
            answers[block][known[block]] = trees.answers(values[block][known[block]])
    return answers


def _known(table: FeatureTable, side: Floats | None) -> NDArray[np.bool_]:
    """Rows with every feature and, for a filter of a rule, a direction of the rule, shape (n_bars,)."""
    return table.complete if side is None else table.complete & ~np.isnan(side)


def _require_regimes(panel: Panel, params: BoostingParams) -> None:
    if params.regime is None:
        return
    if len(panel) > 1:
        raise no_regime_of_pool(params.regime)
    if panel.members[0].regime is None:
        raise SeriesMissing(
            f"regime={params.regime}: the bars come without regimes. Give bars of "
            "`market.regimes.with_regimes(bars, whole)`, whole being the whole stored series"
        )


def _in_regime(parts: Sequence[_Parts], regime: str) -> NDArray[np.bool_]:
    """True in fitted rows of a regime, shape (n_rows,)."""
    return np.concatenate([_regimes_of(each) == STATES.index(regime) for each in parts])


def _regimes_of(part: _Parts) -> NDArray[np.int8]:
    """Regime known at each fitted row of a member, shape (n_rows,)."""
    assert part.member.bars.regime is not None
    return part.member.bars.regime[part.fit]


def _weights(parts: Sequence[_Parts], params: BoostingParams) -> Floats | None:
    if not (params.uniqueness_weights or params.age_half_life or params.regime):
        return None
    uniqueness = np.concatenate([each.uniqueness for each in parts])
    weight = uniqueness if params.uniqueness_weights else np.ones(len(uniqueness))
    if params.age_half_life:
        at = np.concatenate([each.member.at[each.fit] for each in parts])
        # ages count from the newest row of any member
        weight = weight * age_weights(np.append(at, at.max()), params.age_half_life)[:-1]
    if params.regime is not None:
        state = STATES.index(params.regime)
        weight = weight * np.concatenate([regime_weights(_regimes_of(each), state) for each in parts])
    return np.asarray(weight / weight.mean())


def _divided(
    panel: Panel, params: BoostingParams, members: Sequence[_Member]
) -> list[tuple[Rows, Rows, Rows]]:
    """Rows of each member to fit, to stop and to calibrate on; the last two are the same without calibration.

    Moments are divided, not rows: the parts begin at the same time for every member.

    Raises:
        NotEnoughBars: a part has too few rows.
    """
    label_end = np.concatenate([member.end_at for member in members])
    at = np.concatenate([member.at for member in members])
    parts = _parts(panel, params, label_end, at)
    edges = np.cumsum([0, *(len(member.bars) for member in members)]).tolist()
    return [
        (
            _between(parts[0], first, stop),
            _between(parts[1], first, stop),
            _between(parts[2], first, stop),
        )
        for first, stop in pairwise(edges)
    ]


def _between(rows: Rows, first: int, stop: int) -> Rows:
    """Rows from `first` to before `stop`, counted from `first`."""
    return rows[(rows >= first) & (rows < stop)] - first


def _parts(panel: Panel, params: BoostingParams, label_end: Rows, at: Rows) -> tuple[Rows, Rows, Rows]:
    """Rows to fit, to stop and to calibrate on, among the rows of all members in sequence.

    Args:
        label_end: row of the last bar of each label on the common axis, shape (n_rows,); -1 without label.
        at: row on the common axis, shape (n_rows,).
    """
    try:
        tail = purged_tail(label_end, params.validation_fraction, embargo=0, at=at)
        fit = tail.fit
        validation = tail.validation
        calibration = tail.validation
        if params.calibrate:
            of_tail = np.where(at >= at[validation].min(), label_end, -1)
            divided = purged_tail(of_tail, CALIBRATION_SHARE, embargo=0, at=at)
            validation = divided.fit
            calibration = divided.validation
    except NotEnoughBars as error:
        raise NotEnoughBars(f"{panel.name} {panel.timeframe}: {error}", _needed(panel, params)) from error
    least = (MIN_ROWS, MIN_ROWS // 4, MIN_CALIBRATION_ROWS if params.calibrate else 0)
    rows = (len(fit), len(validation), len(calibration))
    if any(have < want for have, want in zip(rows, least, strict=True)):
        kept = f"; {rows[2]} to calibrate on, {least[2]} are needed" if params.calibrate else ""
        raise NotEnoughBars(
            f"{panel.name} {panel.timeframe}: {panel.rows} bars leave {len(fit)} rows to fit on and "
            f"{len(validation)} to validate on; {MIN_ROWS} and {MIN_ROWS // 4} are needed{kept}. "
            "Give more days of bars, a shorter horizon or fewer folds",
            _needed(panel, params),
        )
    return fit, validation, calibration


def _needed(panel: Panel, params: BoostingParams) -> int | None:
    """Bars for a fit of a single market; None for a pool, whose members share the rows."""
    return _bars_to_fit(panel.members[0], params) if len(panel) == 1 else None


def _bars_to_fit(bars: Bars, params: BoostingParams) -> int:
    """Least number of bars for a fit; more bars may have room for a longer horizon, in need of more bars."""
    needed = len(bars)
    while (more := _bars_needed(bars, params, _horizon_of(bars, params, needed))) > needed:
        needed = more
    return more


def _bars_needed(bars: Bars, params: BoostingParams, horizon: int) -> int:
    look_back = max(feature.warm_up for feature in select_features(params.features))
    if params.label == "meta":
        look_back = max(look_back, rule_memory(bars.timeframe))
    least = MIN_ROWS // 4
    if params.calibrate:
        # the older part of the tail loses the rows whose labels reach into the newer part
        for_stopping = (least + horizon + 2) / (1 - CALIBRATION_SHARE)
        least = math.ceil(max(for_stopping, (MIN_CALIBRATION_ROWS + 1) / CALIBRATION_SHARE))
    return bars_for_tail(MIN_ROWS, least, params.validation_fraction, look_back, horizon)


def _reading(
    params: BoostingParams, horizon: int, material: _Material, answered: Sequence[Floats]
) -> tuple[Reading, list[Floats]]:
    """Reading of the trees' answers, fitted on the rows left out of the trees, and the scores by member.

    Args:
        answered: answers to the training bars, shape (n_bars,) for each member.
    """
    base = material.fit.mean
    scale = 1.0
    if params.learns_returns:
        residuals = material.validation.target - _of_rows(
            answered, [each.validation for each in material.parts]
        )
        scale = LOGISTIC_SCALE / max(float(residuals.std()), LEAST_DEVIATION)
    else:
        base = float(log_odds(np.array([base]))[0])
    scaled = np.concatenate(
        [volatility_scaled_return(each.member.bars, horizon).values[each.fit] for each in material.parts]
    )
    reading = Reading(
        label=params.label,
        horizon=horizon,
        base=base,
        scale=scale,
        centre_bars=0 if params.label == "meta" else params.centre_horizons * horizon,
        deviation=float(scaled[~np.isnan(scaled)].std()),
    )
    if params.label == "meta":
        beyond = [reading.beyond_base(answers) for answers in answered]
        labels = [each.member.targets.labels for each in material.parts]
        reading = reading.model_copy(update={"win": _curve(beyond, labels, material, params)})
    sides = [each.member.targets.side for each in material.parts]
    scores = [
        reading.score(answers, side, each.member.bars)
        for each, answers, side in zip(material.parts, answered, sides, strict=True)
    ]
    strengths = np.concatenate(
        [
            reading.strength_of(score, side)[np.union1d(each.validation, each.calibration)]
            for each, score, side in zip(material.parts, scores, sides, strict=True)
        ]
    )
    usual = float(np.sqrt(np.mean(strengths**2)))
    rises = [direction(each.member.bars, horizon) for each in material.parts]
    fitted = reading.model_copy(
        update={
            "rise": _curve(scores, rises, material, params),
            "strength": usual if usual > LEAST_STRENGTH else 0.0,
        }
    )
    return fitted, scores


def _answers_of(trees: Trees, member: _Member) -> Floats:
    """`_answers` on the training bars of a member, whose features are computed already."""
    return _answers_to(trees, member.values, member.known)


def _curve(
    scores: Sequence[Floats], labels: Sequence[Labels], material: _Material, params: BoostingParams
) -> Curve:
    """Curve from the scores of the calibration rows to the outcome of a label of 1 or 0.

    Args:
        scores: shape (n_bars,) for each member.
        labels: labels of each member.
    """
    fitted = np.concatenate([own.values[each.fit] for own, each in zip(labels, material.parts, strict=True)])
    decided = fitted[~np.isnan(fitted)]
    base = base_prior(float(decided.mean()) if len(decided) else 0.5, material.independent)
    if not params.calibrate:
        return Curve(1.0, base.mean)
    rows = [
        each.calibration[own.end[each.calibration] >= 0]
        for own, each in zip(labels, material.parts, strict=True)
    ]
    return fit_curve(
        np.concatenate([score[own] for score, own in zip(scores, rows, strict=True)]),
        np.concatenate([label.values[own] for label, own in zip(labels, rows, strict=True)]),
        np.concatenate(
            [average_uniqueness(own, label.end[own]) for label, own in zip(labels, rows, strict=True)]
        ),
        base,
    )


def _of_rows(values: Sequence[Floats], rows: Sequence[Rows]) -> Floats:
    """Values of some rows of each member, in the order of the members."""
    return _joined([own[chosen] for own, chosen in zip(values, rows, strict=True)])


def _metrics(
    trees: Trees, answered: Sequence[Floats], material: _Material, params: BoostingParams
) -> dict[str, float]:
    """
    Args:
        answered: answers to the training bars, shape (n_bars,) for each member.
    """
    fit = material.fit
    validation = material.validation
    fitted = _of_rows(answered, [each.fit for each in material.parts])
    unseen = _of_rows(answered, [each.validation for each in material.parts])
    constant = np.full(len(unseen), fit.mean)
    loss = _squared_error if params.learns_returns else _log_loss
    name = "squared_error" if params.learns_returns else "log_loss"
    even = 0.0 if params.learns_returns else 0.5
    losses = loss(unseen, validation.target)
    of_constant = loss(constant, validation.target)
    return {
        "fit_rows": float(len(fitted)),
        "validation_rows": float(len(unseen)),
        "rounds": float(trees.rounds),
        f"fit_{name}": float(np.mean(loss(fitted, fit.target))),
        f"validation_{name}": float(np.mean(losses)),
        f"validation_{name}_of_constant": float(np.mean(of_constant)),
        "validation_accuracy": accuracy(unseen - even, validation.target - even),
        "ties": float(material.ties),
        **skill_metrics(losses, of_constant, material.independent_of_validation),
    }


def _reading_metrics(
    params: BoostingParams, material: _Material, reading: Reading, scores: Sequence[Floats]
) -> dict[str, float]:
    """
    Args:
        scores: shape (n_bars,) for each member.
    """
    parts = material.parts
    score = np.concatenate([own[each.calibration] for own, each in zip(scores, parts, strict=True)])
    rises = np.concatenate(
        [direction(each.member.bars, reading.horizon).values[each.calibration] for each in parts]
    )
    decided = ~np.isnan(rises)
    metrics = {
        "horizon": float(reading.horizon),
        "independent_labels": material.independent,
        "calibration_rows": float(len(score)) if params.calibrate else 0.0,
        "calibration_slope": reading.rise.slope,
        "base_rate": material.fit.mean,
    }
    if params.round_trip_bps is not None:
        shares = [cost_share(each.member.bars, reading.horizon, params.round_trip_bps) for each in parts]
        share = sum(shares) / len(shares)
        # a market without moves has no such share, and a card no NaN
        metrics |= {} if math.isnan(share) else {"round_trip_share_of_move": share}
    if decided.any():
        before = Curve(1.0, 0.0).probability(score[decided])
        after = reading.rise.probability(score[decided])
        metrics["calibration_log_loss_before"] = float(np.mean(_log_loss(before, rises[decided])))
        metrics["calibration_log_loss"] = float(np.mean(_log_loss(after, rises[decided])))
    return metrics


def _regime_metrics(material: _Material, params: BoostingParams) -> dict[str, float]:
    """Fitted rows of the regime trained towards, and their share of the weight; empty without a regime."""
    if params.regime is None:
        return {}
    assert material.fit.weight is not None
    within = _in_regime(material.parts, params.regime)
    return {
        "regime_rows": float(np.count_nonzero(within)),
        "regime_share_of_weight": float(material.fit.weight[within].sum() / material.fit.weight.sum()),
    }


def _log_loss(probability: Floats, rises: Floats) -> Floats:
    """-log of the probability given to the observed outcome, shape (n_rows,); a coin scores 0.693."""
    return np.asarray(-np.log(np.where(rises > 0.5, probability, 1 - probability)))


def _squared_error(forecast: Floats, actual: Floats) -> Floats:
    return np.asarray((forecast - actual) ** 2)
