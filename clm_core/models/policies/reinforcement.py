"""Policies that learn by trading: RL v3 (PPO) and RL v2 (DQN) by stable-baselines3.

A policy looks at the features of a bar, at the position it holds and at how its open trade is doing, and
says what to hold next: any position (PPO), rounded to a multiple of `step`, or short, flat or long (DQN). It
learns on episodes cut from the training window, rewarded with log returns after the costs it will pay
(`trading_env`).

What it holds depends on what it held before, so positions are rolled out bar by bar, and its memory is made
finite by the clock: time is cut into spans of `memory` bars, counted from a Monday. Where one begins, the
policy believes that it holds nothing, as at the beginning of an episode. A span is played if its beginning,
with every feature's look-back, is in the unbroken stretch; else its positions are 0. So the last LOOK_BACK +
`memory` bars give the same position as the whole history (up to the tolerance the features state for theirs),
and whoever trades is not told to trade when a span begins: only the policy's beliefs start anew.

The newest `validation_fraction` of the training window is not played in training: of the policies looked at
on the way, the one that earns most there is kept.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from clm_core.domain.costs import Costs
from clm_core.domain.errors import BundleCorrupt, NotEnoughBars
from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import FEATURES, MONDAY, FeatureTable, compute_features
from clm_core.models.contract import ModelCard, Progress, TrainedOn
from clm_core.models.exclusive_torch import exclusive_torch, torch_device
from clm_core.models.params import Device, FeatureNames, TrainingParams, require_features
from clm_core.models.policies.trading import OWN, Flags, MarketArrays, Net, Play, Singles, roll_out
from clm_core.models.threads import exclusive_gpu

if TYPE_CHECKING:
    from clm_core.models.policies.trading_env import TradingEpisodes

FILE = "policy.safetensors"
MIN_STARTS = 200
"""Fewest rows an episode may begin at: with fewer, a policy learns them by heart."""
LARGEST_SCORE = 5.0
"""Features are seen in standard deviations from their mean, cut at this."""


class ReinforcementParams(TrainingParams):
    """Training parameters both kinds share."""

    features: FeatureNames = Field(default_factory=lambda: tuple(FEATURES), min_length=1)
    """Names of the features seen (as text: separated by commas); default all."""
    fee_bps: float = Field(ge=0, lt=10_000)
    """Fee it is trained for; default that of the settings."""
    slippage_bps: float = Field(ge=0, lt=10_000)
    """Slippage it is trained for; default that of the settings."""
    memory: int = Field(default=168, ge=2, le=300)
    """Bars of an episode, after which a policy forgets what it holds; 2..300."""
    drawdown_penalty: Annotated[float, Between(0.0, 1.0)] = Field(default=0.0, ge=0, le=100)
    """Times an episode's deepest drawdown (log) that is taken off its reward: 0 asks for growth alone."""
    discount: Annotated[float, Between(0.8, 0.99)] = Field(default=0.95, ge=0, lt=1)
    """Worth of the next bar's reward beside this one's; 0..1."""
    hidden: Annotated[int, Between(8, 128, log=True)] = Field(default=32, ge=1, le=512)
    """Units in each of the two hidden layers; 1..512."""
    learning_rate: Annotated[float, Between(1e-4, 1e-2, log=True)] = Field(default=1e-3, gt=0, le=1)
    """Of AdamW, at first; falls evenly to 0. 0..1."""
    weight_decay: Annotated[float, Between(0.1, 20.0, log=True)] = Field(default=5.0, ge=0, le=1000)
    """Share of the weights, times the learning rate, taken off at each update (AdamW): much, for noise."""
    players: int = Field(default=64, ge=1, le=4096)
    """Episodes played at the same time; 1..4,096."""
    bars_played: int = Field(ge=1, le=1_000_000_000)
    """Most bars played in training, by all players together."""
    checks: int = Field(default=20, ge=1, le=10_000)
    """How often the policy is tried on the validation bars."""
    patience: int = Field(default=10, ge=1, le=10_000)
    """Checks without a better policy after which training stops."""
    validation_fraction: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the bars with features, the newest, that decides which policy is kept; 0..0.5."""
    device: Device = "auto"
    """Where it is trained: "cpu", "cuda", or "auto", a GPU where there is one."""


class PPOParams(ReinforcementParams):
    model_type: ClassVar[ModelType] = ModelType.RL_V3

    bars_played: int = Field(default=65_536, ge=1, le=1_000_000_000)
    step: float = Field(default=0.25, gt=0, le=1)
    """Wanted positions are rounded to whole multiples of this; 0..1."""
    rollout: int = Field(default=16, ge=2, le=10_000)
    """Bars each player plays between two updates."""
    batch_size: int = Field(default=512, ge=2)
    """Bars an update learns from at a time."""
    epochs: int = Field(default=4, ge=1, le=100)
    """Times an update learns from each bar."""
    entropy: Annotated[float, Between(0.0, 0.03)] = Field(default=0.0, ge=0, le=1)
    """Worth of staying undecided."""
    deviation: Annotated[float, Between(0.3, 1.5)] = Field(default=1.0, gt=0, le=10)
    """Standard deviation of the positions tried at the beginning."""


class DQNParams(ReinforcementParams):
    model_type: ClassVar[ModelType] = ModelType.RL_V2

    hidden: Annotated[int, Between(8, 128, log=True)] = Field(default=16, ge=1, le=512)
    bars_played: int = Field(default=65_536, ge=1, le=1_000_000_000)
    batch_size: int = Field(default=512, ge=2)
    """Bars an update learns from."""
    buffer: int = Field(default=100_000, ge=100)
    """Bars remembered to learn from."""
    updates: Annotated[int, Between(1, 8, log=True)] = Field(default=2, ge=1, le=1000)
    """Updates after every bar of all players."""
    target_interval: int = Field(default=8_000, ge=1)
    """Bars played after which the network that judges what comes next is brought up to date."""
    margin: Annotated[float, Between(0.0, 1.0)] = Field(default=0.3, ge=0, le=100)
    """By how much another position must be worth more than the one held, in standard deviations of a bar's
    return: what a network thinks of three positions is noisy, and each change of mind costs."""
    explored: float = Field(default=0.5, gt=0, le=1)
    """Share of the training over which random actions become rare."""


Params = PPOParams | DQNParams


@dataclass(frozen=True, eq=False)
class Normaliser:
    """How a policy sees: what it was shown in training, measured there."""

    mean: Floats
    """Of each feature, shape (n_features,)."""
    deviation: Floats
    """Of each feature, shape (n_features,); 1 where a feature never varied."""
    volatility: float
    """Standard deviation of one-bar log returns."""

    def seen(self, values: Floats) -> Singles:
        scores = (values - self.mean) / self.deviation
        return np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE).astype(np.float32)


@dataclass(frozen=True, eq=False)
class PolicyModel:
    """A fitted policy of either kind; see the module's docstring for its positions."""

    params: Params
    trained_on: TrainedOn
    train_metrics: dict[str, float]
    sight: Normaliser
    net: Net
    learning_curve: tuple[float, ...] = ()

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    def positions(self, bars: Bars) -> Floats:
        self.trained_on.require_same_series(bars)
        table = compute_features(bars, self.params.features)
        begins, plays = spans(bars, table.complete, self.params.memory)
        return follow(self.params, self.sight, self.net, table, MarketArrays.of(bars), begins, plays)[0]

    def forecast(self, bars: Bars) -> Floats:
        """A policy names positions, not probabilities: NaN everywhere."""
        self.trained_on.require_same_series(bars)
        return np.full(len(bars), np.nan)

    def importances(self) -> dict[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file(_tensors(self.sight, self.net), folder / FILE)


def spans(bars: Bars, complete: Flags, memory: int) -> tuple[Flags, Flags]:
    """Rows at which a policy begins anew, and rows on which it plays, each of shape (n_bars,).

    A span is played when the bar before its first is there, so that no bar of it can be missing, and its
    first has every feature.
    """
    # in whole bars, the first counted from the Monday before 1970
    bar = (bars.time + MONDAY * 60_000_000_000) // bars.timeframe.nanoseconds
    begins, plays = np.zeros(len(bars), np.bool_), np.zeros(len(bars), np.bool_)
    for rows in bars.stretches():
        span = bar[rows] // memory
        fresh = np.flatnonzero((np.diff(span, prepend=span[0]) != 0) & complete[rows])
        begins[rows][fresh] = True
        plays[rows][fresh[0] if len(fresh) else len(span) :] = True
    return begins, plays


def follow(
    params: Params,
    sight: Normaliser,
    net: Net,
    table: FeatureTable,
    market: MarketArrays,
    begins: Flags,
    plays: Flags,
) -> tuple[Floats, Floats]:
    """Positions of a policy, and what each bar earns whoever follows them (log return)."""
    return roll_out(sight.seen(table.values), begins, plays, market, play_of(params, sight), net)


def play_of(
    params: Params, sight: Normaliser, drawdown_penalty: float = 0.0, reward_unit: float = 1.0
) -> Play:
    return Play(
        fee=params.fee_bps / 10_000,
        slippage=params.slippage_bps / 10_000,
        step=params.step if isinstance(params, PPOParams) else 1.0,
        unit=sight.volatility * math.sqrt(params.memory),
        margin=params.margin if isinstance(params, DQNParams) else 0.0,
        drawdown_penalty=drawdown_penalty,
        reward_unit=reward_unit,
    )


@dataclass(frozen=True)
class ReinforcementRecipe:
    params: Params

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    def describe(self) -> dict[str, Any]:
        return self.params.model_dump(mode="json")

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> PolicyModel:
        """Play the older bars; keep the policy that earns most on the newest `validation_fraction`.

        Measures of itself: rows played and held back, mean log return of a bar in basis points after costs on
        both, and whether a GPU was used.
        """
        taught = lesson(bars, self.params)
        report = progress or (lambda done: None)
        device = torch_device(self.params.device)
        trials = _Trials(self.params, taught, report)
        with exclusive_gpu(device), exclusive_torch(seed):
            from clm_core.models.policies.policy_training import train

            train(self.params, taught.arena, seed, device, trials.attend)
        report(1.0)
        return PolicyModel(
            self.params,
            TrainedOn.of(bars, seed),
            trials.metrics | {"gpu": float(device == "cuda")},
            taught.sight,
            trials.best,
            tuple(trials.losses),
        )


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A training window: what is played, and what is held back."""

    sight: Normaliser
    arena: "TradingEpisodes"
    table: FeatureTable
    market: MarketArrays
    played: Flags
    held_back: Flags
    fresh: Flags
    """First rows of the unbroken stretches."""


class _Trials:
    """Tries policies on the bars held back, and keeps the best."""

    def __init__(self, params: Params, lesson: TrainingSet, report: Progress) -> None:
        self.params, self.lesson, self.report = params, lesson, report
        self.losses: list[float] = []
        self.best: Net

    def attend(self, net: Net, done: float) -> bool:
        """Whether it is worth going on."""
        loss = -self._earned(net, self.lesson.held_back)
        if not self.losses or loss < min(self.losses):
            self.best = net
        self.losses.append(loss)
        self.report(done)
        return len(self.losses) - 1 - self.losses.index(min(self.losses)) < self.params.patience

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "fit_rows": float(self.lesson.played.sum()),
            "validation_rows": float(self.lesson.held_back.sum()),
            "fit_bps_a_bar": self._earned(self.best, self.lesson.played),
            "validation_bps_a_bar": -min(self.losses),
        }

    def _earned(self, net: Net, rows: Flags) -> float:
        """Mean log return of a bar, in basis points, of episodes one after the other."""
        seen = self.lesson
        begins = rows & (seen.fresh | (np.cumsum(rows) % self.params.memory == 1))
        earned = follow(self.params, seen.sight, net, seen.table, seen.market, begins, rows)[1]
        return float(earned[rows].mean()) * 10_000


def load(folder: Path, card: ModelCard) -> PolicyModel:
    """The model of a verified bundle.

    Raises:
        FeatureMismatch: its policy sees features that this release does not compute.
        BundleCorrupt: the file holds no such policy.
    """
    require_features(card.params["features"])
    params = PARAMS[card.model_type].parse(card.params)
    sight, net = _parsed((folder / FILE).read_bytes(), params)
    return PolicyModel(params, card.trained_on, card.train_metrics, sight, net)


PARAMS: dict[ModelType, type[PPOParams] | type[DQNParams]] = {
    ModelType.RL_V2: DQNParams,
    ModelType.RL_V3: PPOParams,
}


def _tensors(sight: Normaliser, net: Net) -> dict[str, Floats]:
    own = {"mean": sight.mean, "deviation": sight.deviation, "volatility": np.array([sight.volatility])}
    return own | net._asdict()


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    n, hidden = len(params.features), params.hidden
    answers = 1 if isinstance(params, PPOParams) else 3
    return {
        "mean": (n,),
        "deviation": (n,),
        "volatility": (1,),
        "weight_1": (n + OWN, hidden),
        "bias_1": (hidden,),
        "weight_2": (hidden, hidden),
        "bias_2": (hidden,),
        "weight_3": (hidden, answers),
        "bias_3": (answers,),
    }


def _parsed(raw: bytes, params: Params) -> tuple[Normaliser, Net]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    try:
        tensors = parse(raw)
    except SafetensorError as error:
        raise BundleCorrupt(f"{FILE} cannot be read: train the model again ({error})") from error
    found = {name: values.shape for name, values in tensors.items()}
    sound = all(values.dtype == np.float64 and np.isfinite(values).all() for values in tensors.values())
    if found != _shapes(params) or not sound:
        raise BundleCorrupt(f"{FILE} is not the policy the model's card describes: train the model again")
    sight = Normaliser(tensors["mean"], tensors["deviation"], float(tensors["volatility"][0]))
    return sight, Net(*(tensors[name] for name in Net._fields))


def lesson(bars: Bars, params: Params) -> TrainingSet:
    from clm_core.models.policies.trading_env import TradingEpisodes, episode_starts

    table = compute_features(bars, params.features)
    played, held_back = _cut(table.complete, params.validation_fraction)
    starts = episode_starts(bars, played, params.memory)
    if len(starts) < MIN_STARTS:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: {len(bars)} bars leave {len(starts)} at which an episode of "
            f"{params.memory} may begin; {MIN_STARTS} are needed. Give more days of bars, a shorter "
            "memory or fewer folds"
        )
    sight, market = _sight(bars, table, played), MarketArrays.of(bars)
    play = play_of(params, sight, params.drawdown_penalty, sight.volatility)
    discrete = isinstance(params, DQNParams)
    arena = TradingEpisodes(sight.seen(table.values), market, starts, params.memory, play, discrete)
    fresh = np.diff(bars.segments, prepend=-1) != 0
    return TrainingSet(sight, arena, table, market, played, held_back, fresh)


def _cut(complete: Flags, fraction: float) -> tuple[Flags, Flags]:
    """Rows with features: the older, and the newest `fraction`."""
    newer = np.cumsum(complete) > complete.sum() * (1 - fraction)
    return complete & ~newer, complete & newer


def _sight(bars: Bars, table: FeatureTable, rows: Flags) -> Normaliser:
    values = table.values[rows]
    deviation = values.std(axis=0)
    steps = np.diff(np.log(bars.close))[rows[1:]]
    return Normaliser(values.mean(axis=0), np.where(deviation > 0, deviation, 1.0), float(steps.std()) or 1.0)


def recipe(model_type: ModelType, params: Mapping[str, Any], costs: Costs) -> ReinforcementRecipe:
    """
    Raises:
        InvalidTrainingParams: a parameter is unknown, out of range, or asks for a GPU that is not there.
    """
    parsed = PARAMS[model_type].parse(costs.model_dump() | dict(params))
    if parsed.device == "cuda":
        torch_device(parsed.device)
    return ReinforcementRecipe(parsed)
