"""Reinforcement learning environments: episodes of bars, traded by the rules in `trading`.

An episode starts without a position at the close of any bar of the training window and trades the next
`length` bars, all of a single unbroken stretch. The reward of a bar is the log return of the equity over the
bar, after fee and slippage, in `TradingRules.reward_unit`; less the drawdown penalty, if any. The last bar
closes an open position at the close: the rewards of an episode sum to the log of the equity that the
backtest's engine makes of the same positions. The end of an episode is a truncation, for trading goes on;
ruin is a termination.

`VectorTradingEnv` plays many episodes as arrays; `TradingEnv` plays the same episodes through gymnasium's
interface. Actions are 0, 1, 2 for short, flat, long, or the position itself, in [-1, 1].
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from clm_core.market.bars import Bars, Floats
from clm_core.models.policies.trading import (
    ACCOUNT_INPUTS,
    EQUITY,
    MIN_EQUITY,
    NEW_ACCOUNT,
    BoolArray,
    Float32Array,
    MarketArrays,
    RowIndices,
    TradingRules,
    observe,
    trade_bar,
)


@dataclass(frozen=True, eq=False)
class TradingEpisodes:
    """Episodes that can be played: bars, rows to start from, and rules."""

    features: Float32Array
    """Normalised features, shape (n_bars, n_features); finite in every row that an episode can reach."""
    market: MarketArrays
    starts: RowIndices
    """Rows at which an episode may start."""
    length: int
    """Bars traded by an episode."""
    rules: TradingRules
    discrete: bool
    """True for the actions short, flat and long; False for any position."""

    @property
    def observation_size(self) -> int:
        return int(self.features.shape[1]) + ACCOUNT_INPUTS

    @property
    def observation_space(self) -> spaces.Space[Any]:
        return spaces.Box(-np.inf, np.inf, (self.observation_size,), np.float32)

    @property
    def action_space(self) -> spaces.Space[Any]:
        return spaces.Discrete(3) if self.discrete else spaces.Box(-1.0, 1.0, (1,), np.float32)

    def targets(self, actions: NDArray[Any]) -> Floats:
        """Target positions of n actions, not yet rounded, shape (n,)."""
        return actions.astype(np.float64).reshape(-1) - (1.0 if self.discrete else 0.0)


def episode_starts(bars: Bars, complete: BoolArray, length: int) -> RowIndices:
    """Rows with features, followed by `length` bars with features within the same stretch."""
    rows = np.arange(max(0, len(bars) - length))
    n_complete = np.concatenate([[0], np.cumsum(complete)])
    unbroken = bars.segments[rows] == bars.segments[rows + length]
    with_features = n_complete[rows + length + 1] - n_complete[rows] == length + 1
    return np.asarray(rows[unbroken & with_features])


class VectorTradingEnv(VecEnv):
    """Episodes in parallel; an episode that ends is replaced by a new episode from a random start."""

    render_mode = None

    def __init__(self, episodes: TradingEpisodes, count: int, rng: np.random.Generator) -> None:
        super().__init__(count, episodes.observation_space, episodes.action_space)
        self.episodes = episodes
        self._rng = rng
        self._rows = np.zeros(count, np.int64)
        self._ends = np.zeros(count, np.int64)
        self._accounts = np.tile(NEW_ACCOUNT, (count, 1))
        self._targets = np.zeros(count)

    def reset(self) -> Float32Array:
        self._start(np.arange(self.num_envs))
        return self._observations()

    def step_async(self, actions: NDArray[Any]) -> None:
        self._targets = self.episodes.targets(actions)

    def step_wait(self) -> tuple[Float32Array, Floats, BoolArray, list[dict[str, Any]]]:
        episodes = self.episodes
        rewards = np.empty(self.num_envs)
        last = self._rows + 1 == self._ends
        trade_bar(self._targets, self._rows, last, self._accounts, episodes.market, episodes.rules, rewards)
        ruined = self._accounts[:, EQUITY] <= MIN_EQUITY
        done = last | ruined
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        observations = self._observations()
        ended = np.flatnonzero(done)
        if len(ended):
            for index in ended:
                infos[index] = {
                    "terminal_observation": observations[index].copy(),
                    "TimeLimit.truncated": not ruined[index],
                }
            self._start(ended)
            observations = self._observations()
        return observations, rewards, done, infos

    def _start(self, indices: RowIndices) -> None:
        self._rows[indices] = self._rng.choice(self.episodes.starts, len(indices))
        self._ends[indices] = self._rows[indices] + self.episodes.length
        self._accounts[indices] = NEW_ACCOUNT

    def _observations(self) -> Float32Array:
        episodes = self.episodes
        observations = np.empty((self.num_envs, episodes.observation_size), np.float32)
        observe(observations, episodes.features, self._rows, self._accounts, episodes.market, episodes.rules)
        return observations

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("parallel episodes share all attributes: create another environment")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("parallel episodes are arrays and have no methods")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))


class TradingEnv(gymnasium.Env[Float32Array, Any]):
    """A single episode at a time, by the same rules."""

    render_mode = None

    def __init__(self, episodes: TradingEpisodes) -> None:
        self.episodes = episodes
        self.observation_space = episodes.observation_space
        self.action_space = episodes.action_space
        self._row = np.zeros(1, np.int64)
        self._end = 0
        self._account = NEW_ACCOUNT[None].copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Start an episode at a random start, or at the row `options["row"]`."""
        super().reset(seed=seed)
        row = options["row"] if options and "row" in options else self.np_random.choice(self.episodes.starts)
        self._row[:] = row
        self._end = int(row) + self.episodes.length
        self._account[:] = NEW_ACCOUNT
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        episodes = self.episodes
        reward = np.empty(1)
        last = self._row + 1 == self._end
        targets = episodes.targets(np.asarray(action))
        trade_bar(targets, self._row, last, self._account, episodes.market, episodes.rules, reward)
        ruined = bool(self._account[0, EQUITY] <= MIN_EQUITY)
        return self._observation(), float(reward[0]), ruined, bool(last[0]) and not ruined, {}

    def _observation(self) -> Float32Array:
        episodes = self.episodes
        observation = np.empty((1, episodes.observation_size), np.float32)
        observe(observation, episodes.features, self._row, self._account, episodes.market, episodes.rules)
        return observation.reshape(-1)
