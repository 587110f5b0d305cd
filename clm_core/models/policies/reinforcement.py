"""Recipe and model shared by the reinforcement learning policies.

A policy observes the features of a bar, the current position and the return of the open trade, and chooses
the next position: any position, rounded to a multiple of `step` (RL v3), or short, flat or long (RL v2).
Training plays episodes cut from the training window, with log returns after the costs of trading as rewards
(`trading_env`).

The next position depends on the current position, so positions are rolled out bar by bar, and the clock makes
the memory of a policy finite: time is divided into spans of `memory` bar lengths, counted from a Monday
(where a market closes, a span has fewer bars: a week of hours has 35 bars of a share). Each span
starts with the belief of holding no position, as does an episode. A span is played if the start of the span,
with the look-back of every feature, is in the unbroken stretch; otherwise the positions are 0. So the last
`bars_needed` bars, the memory of the features plus the span, give the same position as the whole history. The
start of a span causes no trade as such: only the beliefs of the policy start anew.

The newest `validation_fraction` of the training window is not played in training: of the policies checked
during training, the policy with the highest return on those bars is kept.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clm_core.domain.costs import MarketCosts
from clm_core.domain.errors import BundleCorrupt, NotEnoughBars
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import MONDAY, FeatureTable, compute_features, memory_of, select_features
from clm_core.models.contract import Change, ModelCard, Progress, TrainedOn
from clm_core.models.exclusive_torch import exclusive_torch, torch_device
from clm_core.models.params import require_features
from clm_core.models.policies.policy_params import PolicyParams
from clm_core.models.policies.trading import (
    ACCOUNT_INPUTS,
    BoolArray,
    Float32Array,
    MarketArrays,
    PolicyNetwork,
    TradingRules,
    roll_out,
)
from clm_core.models.threads import exclusive_gpu

if TYPE_CHECKING:
    from clm_core.models.policies.trading_env import TradingEpisodes

FILE = "policy.safetensors"
LATER_PARAMS = ("funding_bps_per_8h", "borrow_bps_per_year", "long_only")
"""Parameters unknown to release 0.1.0, described only where they are not 0 or false."""
MIN_STARTS = 200
"""Minimum number of rows at which an episode may start: with fewer rows a policy learns the rows by heart."""
MAX_SCORE = 5.0
"""Standard deviations from the mean at which features are clipped."""


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Scale of the observations, measured on the training rows."""

    mean: Floats
    """Mean of each feature, shape (n_features,)."""
    deviation: Floats
    """Standard deviation of each feature, shape (n_features,); 1 for a constant feature."""
    volatility: float
    """Standard deviation of one-bar log returns."""

    def scores(self, values: Floats) -> Float32Array:
        """Features in standard deviations from the mean, clipped at MAX_SCORE."""
        scores = (values - self.mean) / self.deviation
        return np.clip(scores, -MAX_SCORE, MAX_SCORE).astype(np.float32)


@dataclass(frozen=True, eq=False)
class PolicyModel:
    """Fitted policy; the module's docstring defines the positions."""

    params: PolicyParams
    trained_on: TrainedOn
    train_metrics: dict[str, float]
    normaliser: Normaliser
    network: PolicyNetwork
    learning_curve: tuple[float, ...] = ()
    change: Change | None = None
    """Change of the feature values; None for the values themselves."""

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    @property
    def bars_needed(self) -> int:
        # at the last bar of a span the window reaches back to the first, which needs a bar before it and
        # every feature; a span of a market that closes has fewer bars
        return max(memory_of(self.params.features), 1) + self.params.memory

    def positions(self, bars: Bars) -> Floats:
        bars = self.trained_on.accept(bars)
        table = compute_features(bars, self.params.features).changed(self.change)
        starts, active = spans(bars, table.complete, self.params.memory)
        market = MarketArrays.of(bars, self.params.holding)
        return follow(self.params, self.normaliser, self.network, table, market, starts, active)[0]

    def forecast(self, bars: Bars) -> Floats:
        """NaN everywhere: a policy chooses positions and forecasts no probabilities."""
        self.trained_on.accept(bars)
        return np.full(len(bars), np.nan)

    def importances(self) -> dict[str, float]:
        return {}

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.params.features

    def with_changed_inputs(self, change: Change) -> "PolicyModel":
        return replace(self, change=change)

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file(_tensors(self.normaliser, self.network), folder / FILE)


def spans(bars: Bars, complete: BoolArray, memory: int) -> tuple[BoolArray, BoolArray]:
    """Starting rows of spans, and rows in which the policy is active, each of shape (n_bars,).

    A span is played if the bar before the first bar of the span exists, so that no bar of the span can be
    missing, and the first bar has every feature.
    """
    # in whole bars, counted from the Monday before 1970
    bar = (bars.time + MONDAY * 60_000_000_000) // bars.timeframe.nanoseconds
    starts = np.zeros(len(bars), np.bool_)
    active = np.zeros(len(bars), np.bool_)
    for rows in bars.stretches():
        span = bar[rows] // memory
        first = np.flatnonzero((np.diff(span, prepend=span[0]) != 0) & complete[rows])
        starts[rows][first] = True
        active[rows][first[0] if len(first) else len(span) :] = True
    return starts, active


def follow(
    params: PolicyParams,
    normaliser: Normaliser,
    network: PolicyNetwork,
    table: FeatureTable,
    market: MarketArrays,
    starts: BoolArray,
    active: BoolArray,
) -> tuple[Floats, Floats]:
    """Positions of a policy, and the log return per bar of following the positions."""
    rules = rules_of(params, normaliser)
    return roll_out(normaliser.scores(table.values), starts, active, market, rules, network)


def rules_of(
    params: PolicyParams, normaliser: Normaliser, drawdown_penalty: float = 0.0, reward_unit: float = 1.0
) -> TradingRules:
    return TradingRules(
        fee=params.fee_bps / 10_000,
        slippage=params.slippage_bps / 10_000,
        step=params.position_step,
        unit=normaliser.volatility * math.sqrt(params.memory),
        margin=params.switching_margin,
        drawdown_penalty=drawdown_penalty,
        reward_unit=reward_unit,
        lowest=0.0 if params.long_only else -1.0,
    )


@dataclass(frozen=True)
class ReinforcementRecipe:
    """Validated training parameters of a policy."""

    params: PolicyParams

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    def describe(self) -> dict[str, Any]:
        later = {name: getattr(self.params, name) for name in LATER_PARAMS}
        unused = {name for name, value in later.items() if not value}
        return self.params.model_dump(mode="json", exclude=unused)

    def bars_to_fit(self, bars: Bars) -> int:
        return _bars_needed(self.params)

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> PolicyModel:
        """Play the older bars; keep the policy that earns most on the newest `validation_fraction`.

        Training metrics: rows played and rows held back, mean log return per bar in basis points after costs
        on each part, and 1 if trained on a GPU.
        """
        material = training_set(bars, self.params)
        report = progress or (lambda done: None)
        device = torch_device(self.params.device)
        selection = _Selection(self.params, material, report)
        with exclusive_gpu(device), exclusive_torch(seed):
            from clm_core.models.policies.training import train

            train(self.params, material.episodes, seed, device, selection.check)
        report(1.0)
        return PolicyModel(
            self.params,
            TrainedOn.of(bars, seed),
            selection.metrics | {"gpu": float(device == "cuda")},
            material.normaliser,
            selection.best,
            tuple(selection.losses),
        )


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Training window, split into rows to play and rows held back for validation."""

    normaliser: Normaliser
    episodes: "TradingEpisodes"
    table: FeatureTable
    market: MarketArrays
    played: BoolArray
    held_back: BoolArray
    stretch_starts: BoolArray
    """First rows of the unbroken stretches."""


class _Selection:
    """Choice of the best policy by the return on the rows held back."""

    def __init__(self, params: PolicyParams, material: TrainingSet, report: Progress) -> None:
        self.params = params
        self.material = material
        self.report = report
        self.losses: list[float] = []
        self.best: PolicyNetwork

    def check(self, network: PolicyNetwork, done: float) -> bool:
        """Validate a policy; False, after `patience` checks without a better policy, stops the training.

        Args:
            done: finished fraction of the training, 0..1.
        """
        loss = -self._mean_return_bps(network, self.material.held_back)
        if not self.losses or loss < min(self.losses):
            self.best = network
        self.losses.append(loss)
        self.report(done)
        return len(self.losses) - 1 - self.losses.index(min(self.losses)) < self.params.patience

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "fit_rows": float(self.material.played.sum()),
            "validation_rows": float(self.material.held_back.sum()),
            "fit_bps_a_bar": self._mean_return_bps(self.best, self.material.played),
            "validation_bps_a_bar": -min(self.losses),
        }

    def _mean_return_bps(self, network: PolicyNetwork, rows: BoolArray) -> float:
        """Mean log return per bar, in basis points, of consecutive episodes on the rows."""
        material = self.material
        starts = rows & (material.stretch_starts | (np.cumsum(rows) % self.params.memory == 1))
        _, log_returns = follow(
            self.params, material.normaliser, network, material.table, material.market, starts, rows
        )
        return float(log_returns[rows].mean()) * 10_000


def load(folder: Path, card: ModelCard, params_class: type[PolicyParams]) -> PolicyModel:
    """Model of a verified bundle.

    Raises:
        FeatureMismatch: the policy needs features unknown to the installed release.
        BundleCorrupt: the file does not hold the policy of the card.
    """
    require_features(card.params["features"])
    params = params_class.parse(card.params)
    normaliser, network = _parsed((folder / FILE).read_bytes(), params)
    return PolicyModel(params, card.trained_on, card.train_metrics, normaliser, network)


def _tensors(normaliser: Normaliser, network: PolicyNetwork) -> dict[str, Floats]:
    return {
        "mean": normaliser.mean,
        "deviation": normaliser.deviation,
        "volatility": np.array([normaliser.volatility]),
        **network._asdict(),
    }


def _shapes(params: PolicyParams) -> dict[str, tuple[int, ...]]:
    n = len(params.features)
    hidden = params.hidden
    outputs = 3 if params.discrete else 1
    return {
        "mean": (n,),
        "deviation": (n,),
        "volatility": (1,),
        "weight_1": (n + ACCOUNT_INPUTS, hidden),
        "bias_1": (hidden,),
        "weight_2": (hidden, hidden),
        "bias_2": (hidden,),
        "weight_3": (hidden, outputs),
        "bias_3": (outputs,),
    }


def _parsed(raw: bytes, params: PolicyParams) -> tuple[Normaliser, PolicyNetwork]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    try:
        tensors = parse(raw)
    except SafetensorError as error:
        raise BundleCorrupt(f"{FILE} cannot be read: train the model again ({error})") from error
    shapes = {name: values.shape for name, values in tensors.items()}
    sound = all(values.dtype == np.float64 and np.isfinite(values).all() for values in tensors.values())
    if shapes != _shapes(params) or not sound:
        raise BundleCorrupt(f"{FILE} is not the policy described by model.json: train the model again")
    normaliser = Normaliser(tensors["mean"], tensors["deviation"], float(tensors["volatility"][0]))
    return normaliser, PolicyNetwork(*(tensors[name] for name in PolicyNetwork._fields))


def training_set(bars: Bars, params: PolicyParams) -> TrainingSet:
    """Training set of a series.

    Raises:
        NotEnoughBars: fewer than `MIN_STARTS` rows at which an episode may start.
    """
    from clm_core.models.policies.trading_env import TradingEpisodes, episode_starts

    table = compute_features(bars, params.features)
    played, held_back = _split(table.complete, params.validation_fraction)
    starts = episode_starts(bars, played, params.memory)
    if len(starts) < MIN_STARTS:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: {len(bars)} bars leave {len(starts)} rows at which an episode "
            f"of {params.memory} bars may start; {MIN_STARTS} are needed. Give more days of bars, a shorter "
            "memory or fewer folds",
            needed=_bars_needed(params),
        )
    normaliser = _normaliser(bars, table, played)
    market = MarketArrays.of(bars, params.holding)
    rules = rules_of(params, normaliser, params.drawdown_penalty, normaliser.volatility)
    features = normaliser.scores(table.values)
    episodes = TradingEpisodes(features, market, starts, params.memory, rules, params.discrete)
    stretch_starts = np.diff(bars.segments, prepend=-1) != 0
    return TrainingSet(normaliser, episodes, table, market, played, held_back, stretch_starts)


def _bars_needed(params: PolicyParams) -> int:
    look_back = max(feature.warm_up for feature in select_features(params.features))
    return look_back + math.ceil((MIN_STARTS + params.memory) / (1 - params.validation_fraction))


def _split(complete: BoolArray, fraction: float) -> tuple[BoolArray, BoolArray]:
    """Rows with features: the older rows, and the newest `fraction`."""
    newer = np.cumsum(complete) > complete.sum() * (1 - fraction)
    return complete & ~newer, complete & newer


def _normaliser(bars: Bars, table: FeatureTable, rows: BoolArray) -> Normaliser:
    values = table.values[rows]
    deviation = values.std(axis=0)
    steps = np.diff(np.log(bars.close))[rows[1:]]
    return Normaliser(values.mean(axis=0), np.where(deviation > 0, deviation, 1.0), float(steps.std()) or 1.0)


def recipe_of(
    params_class: type[PolicyParams], params: Mapping[str, Any], costs: MarketCosts
) -> ReinforcementRecipe:
    """Recipe of a kind of policy; the costs are defaults of the parameters.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range, or requires a GPU where none is found.
    """
    known = costs.model_dump(exclude={"holding"}) | costs.holding.model_dump()
    parsed = params_class.parse(known | dict(params))
    if parsed.device == "cuda":
        torch_device(parsed.device)
    return ReinforcementRecipe(parsed)
