"""Vectorised trading environment against DummyVecEnv of stable-baselines3, and the PPO recipe, end to end,
against PPO of stable-baselines3: with its defaults, untuned, and tuned for speed.

Both learners play the same number of bars of the same training window, with momentum in the returns and the
default costs; features, units and rewards are the same for both. The peer is PPO("MlpPolicy") on a
DummyVecEnv of the plain gymnasium environment: one environment and the defaults, or as many environments as
ours and large batches, as an expert would choose. The recipe under test includes features, parallel episodes
and checks on bars held back, without early stopping. The reward compared is the mean log return, after costs,
of the final policies on bars outside the training window, over 5 seeds.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.table import Row, Timing, faster, side_by_side, timed, timing_of
from clm_core.domain.costs import Costs
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.exclusive_torch import exclusive_torch
from clm_core.models.policies.reinforcement import PolicyModel, ReinforcementRecipe, training_set
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
TARGETS = (8.0, None)
"""Minimum ratios beside each of the peers."""
TIMES_THE_REWARD = "times the reward"
PEERS: dict[str, dict[str, Any]] = {
    "its defaults, untuned: 1 environment, batches of 64": {},
    f"{EPISODES} environments, batches of 2,048": {"n_steps": 64, "batch_size": 2_048},
}
"""Arguments of PPO by description; the environments are those named."""
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
    timing: Timing
    """Times of a training."""
    reward: float
    """Mean log return per bar outside the training window, in basis points."""


Decide = Callable[[Float32Array], Floats]
"""Function from an observation to a position."""


def rows() -> list[Row]:
    # the environment's bounds are infinite, as returns are
    warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")
    return [environment(), *learners()]


def environment() -> Row:
    from stable_baselines3.common.vec_env import DummyVecEnv

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
    runs = [(ours(bars, seed), *(peers(bars, seed, name) for name in PEERS)) for seed in SEEDS]
    timings = [all_runs([run[side] for run in runs]) for side in range(len(PEERS) + 1)]
    rewards = [mean(run[side].reward for run in runs) for side in range(len(PEERS) + 1)]
    what = f"PPO, {PLAYED:,} bars played, end to end"
    rows = list[Row]()
    for name, timing, reward, target in zip(PEERS, timings[1:], rewards[1:], TARGETS, strict=True):
        earned = f"reward on unseen bars: {rewards[0]:.1f} bps a bar against {reward:.1f}, {len(SEEDS)} seeds"
        peer = f"{PEER}, {name}"
        rows += [
            faster(what, timings[0], peer, timing, target),
            Row(earned, timings[0], peer, timing, rewards[0] / reward, 1.0, TIMES_THE_REWARD),
        ]
    return rows


def all_runs(runs: list[TrainingRun]) -> Timing:
    return timing_of([(run.timing.clock[0], run.timing.processor[0]) for run in runs])


def ours(bars: Bars, seed: int) -> TrainingRun:
    models = list[PolicyModel]()
    timing = timed(
        lambda: models.append(ReinforcementRecipe(PARAMS).fit(bars[:N_TRAINING], seed)), 1, warm_up=False
    )
    network = models[0].network

    def decide(observation: Float32Array) -> Floats:
        hidden = np.maximum(observation @ network.weight_1 + network.bias_1, 0)
        return np.maximum(hidden @ network.weight_2 + network.bias_2, 0) @ network.weight_3 + network.bias_3

    return TrainingRun(timing, unseen_reward(episodes_of(bars), decide))


def peers(bars: Bars, seed: int, name: str) -> TrainingRun:
    """Training of the peer on the whole training window, without bars held back.

    A single torch thread is the fastest setting for the peer, too.
    """
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    episodes = episodes_of(bars)
    arguments = PEERS[name]
    environments = EPISODES if arguments else 1
    learners = list[PPO]()

    def train() -> None:
        with exclusive_torch(seed):
            env = DummyVecEnv([lambda: TradingEnv(episodes)] * environments)
            learners.append(PPO("MlpPolicy", env, device="cpu", **arguments).learn(PLAYED))

    timing = timed(train, 1, warm_up=False)

    def decide(observation: Float32Array) -> Floats:
        return np.asarray(learners[0].predict(observation, deterministic=True)[0])

    return TrainingRun(timing, unseen_reward(episodes, decide))


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
