"""Vectorised trading environment against DummyVecEnv of stable-baselines3, and the PPO recipe, end to end,
against PPO of stable-baselines3 with its defaults.

Both learners play the same number of bars of the same training window, with momentum in the returns and the
default costs; features, units and rewards are the same for both. The peer is PPO("MlpPolicy") on a
DummyVecEnv of the plain gymnasium environment; the recipe under test includes features, parallel episodes and
checks on bars held back, without early stopping. The reward compared is the mean log return, after costs, of
the final policies on bars outside the training window, over 5 seeds.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from statistics import mean, median
from time import perf_counter

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.table import Row, faster, side_by_side
from clm_core.domain.costs import Costs
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.exclusive_torch import exclusive_torch
from clm_core.models.policies.reinforcement import ReinforcementRecipe, training_set
from clm_core.models.policies.rl_v3 import PPOParams
from clm_core.models.policies.trading import Float32Array, MarketArrays
from clm_core.models.policies.trading_env import TradingEnv, TradingEpisodes, VectorTradingEnv, episode_starts

N_BARS = 3_000
N_TRAINING = 2_000
MOMENTUM = 0.5
PLAYED = 32_768
SEEDS = range(5)
EPISODES = 64
PARAMS = PPOParams(
    fee_bps=Costs().fee_bps,
    slippage_bps=Costs().slippage_bps,
    players=EPISODES,
    bars_played=PLAYED,
    patience=10_000,
    device="cpu",
)
ROUNDS = 20
TIMES_THE_REWARD = "times the reward"
PEER = f"stable-baselines3 {version('stable-baselines3')}"


def series() -> Bars:
    """Hourly bars with momentum in the one-bar log returns."""
    rng = np.random.default_rng(11)
    steps = rng.normal(0, 0.005, N_BARS)
    for t in range(1, N_BARS):
        steps[t] += MOMENTUM * steps[t - 1]
    close = 1000 * np.exp(np.cumsum(steps))
    open_ = np.concatenate([close[:1], close[:-1]])
    wick = 1 + rng.exponential(0.001, N_BARS)
    time = np.arange(N_BARS, dtype=np.int64) * Timeframe.H1.nanoseconds
    high = np.maximum(open_, close) * wick
    low = np.minimum(open_, close) / wick
    volume = rng.lognormal(3, 1, N_BARS)
    return Bars("WALK", Timeframe.H1, Calendar.ALWAYS, time, open_, high, low, close, volume)


@dataclass(frozen=True)
class TrainingRun:
    seconds: float
    """Duration of a training."""
    reward: float
    """Mean log return per bar outside the training window, in basis points."""


Decide = Callable[[Float32Array], Floats]
"""Function from an observation to a position."""


def rows() -> list[Row]:
    # the environment's bounds are infinite, as returns are
    warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")
    return [environment(), *learners()]


def environment() -> Row:
    episodes = training_set(series(), PARAMS).episodes
    ours = VectorTradingEnv(episodes, EPISODES, np.random.default_rng(0))
    peer = DummyVecEnv([lambda: TradingEnv(episodes) for _ in range(EPISODES)])
    actions = np.random.default_rng(1).uniform(-1, 1, (EPISODES, 1)).astype(np.float32)
    ours.reset(), peer.reset()
    times = side_by_side(lambda: ours.step(actions), lambda: peer.step(actions), ROUNDS)
    name = f"a bar of {EPISODES} trading environments"
    return faster(name, times[0], f"{PEER}, DummyVecEnv of the plain environment", times[1], 20.0)


def learners() -> list[Row]:
    bars = series()
    # compiles and imports
    ours(bars, 0)
    pairs = [(ours(bars, seed), peers(bars, seed)) for seed in SEEDS]
    our_s, peer_s = (median(pair[side].seconds for pair in pairs) for side in (0, 1))
    our_bps, peer_bps = (mean(pair[side].reward for pair in pairs) for side in (0, 1))
    what = f"PPO, {PLAYED:,} bars played, end to end"
    peer = f"{PEER}, its defaults"
    earned = f"reward on unseen bars: {our_bps:.1f} bps a bar against {peer_bps:.1f}, {len(SEEDS)} seeds"
    return [
        faster(what, our_s, peer, peer_s, 8.0),
        Row(earned, our_s, peer, peer_s, our_bps / peer_bps, 1.0, TIMES_THE_REWARD),
    ]


def ours(bars: Bars, seed: int) -> TrainingRun:
    start = perf_counter()
    model = ReinforcementRecipe(PARAMS).fit(bars[:N_TRAINING], seed)
    seconds = perf_counter() - start
    network = model.network

    def decide(observation: Float32Array) -> Floats:
        hidden = np.maximum(observation @ network.weight_1 + network.bias_1, 0)
        return np.maximum(hidden @ network.weight_2 + network.bias_2, 0) @ network.weight_3 + network.bias_3

    return TrainingRun(seconds, unseen_reward(episodes_of(bars), decide))


def peers(bars: Bars, seed: int) -> TrainingRun:
    """Training of the peer on the whole training window, without bars held back.

    A single torch thread is the fastest setting for the peer, too.
    """
    episodes = episodes_of(bars)
    start = perf_counter()
    with exclusive_torch(seed):
        learner = PPO("MlpPolicy", DummyVecEnv([lambda: TradingEnv(episodes)]), device="cpu")
        learner.learn(PLAYED)
    seconds = perf_counter() - start

    def decide(observation: Float32Array) -> Floats:
        return np.asarray(learner.predict(observation, deterministic=True)[0])

    return TrainingRun(seconds, unseen_reward(episodes, decide))


def episodes_of(bars: Bars) -> TradingEpisodes:
    """Episodes from the whole training window, including the later bars for the evaluation."""
    material = training_set(bars[:N_TRAINING], PARAMS)
    table = compute_features(bars)
    starts = episode_starts(bars[:N_TRAINING], table.complete[:N_TRAINING], PARAMS.memory)
    return replace(
        material.episodes,
        features=material.normaliser.scores(table.values),
        market=MarketArrays.of(bars),
        starts=starts,
    )


def unseen_reward(episodes: TradingEpisodes, decide: Decide) -> float:
    """Mean log return per bar, in basis points, of consecutive episodes in the plain environment."""
    env = TradingEnv(episodes)
    earned = 0.0
    starts = range(N_TRAINING, N_BARS - PARAMS.memory, PARAMS.memory)
    for row in starts:
        observation, _ = env.reset(options={"row": row})
        for _ in range(PARAMS.memory):
            observation, reward, *_ = env.step(decide(observation))
            earned += reward * episodes.rules.reward_unit
    return 10_000 * earned / (len(starts) * PARAMS.memory)
