"""Trading as something to be learnt by doing: episodes of bars, played by the rules of `trading`.

An episode begins, holding nothing, at the close of any bar of the training window and trades the `length`
bars after it, all of one unbroken stretch. The reward of a bar is the log return of the equity over it, after
fee and slippage, in `Play.reward_unit`; less the drawdown penalty, if there is one. What is open after the
last bar is closed at its close: an episode's rewards sum to the log of what the backtest's engine makes of
the same positions. That end is a truncation, for trading goes on; ruin is a true one.

`VectorTradingEnv` plays many episodes as arrays; `TradingEnv` is the same game for whatever speaks gymnasium.
Actions are 0, 1, 2 for short, flat, long, or the position itself, in [-1, 1].
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
    BLANK,
    EQUITY,
    LEAST,
    OWN,
    Flags,
    MarketArrays,
    Play,
    Rows,
    Singles,
    look,
    play_bar,
)


@dataclass(frozen=True, eq=False)
class TradingEpisodes:
    """What episodes are cut from."""

    features: Singles
    """Shape (n_bars, n_features); finite in every row that an episode can reach."""
    market: MarketArrays
    starts: Rows
    """Rows an episode may begin at."""
    length: int
    """Bars an episode trades."""
    play: Play
    discrete: bool
    """Whether actions are short, flat and long, instead of any position."""

    @property
    def width(self) -> int:
        """Values in an observation."""
        return int(self.features.shape[1]) + OWN

    @property
    def observation_space(self) -> spaces.Space[Any]:
        return spaces.Box(-np.inf, np.inf, (self.width,), np.float32)

    @property
    def action_space(self) -> spaces.Space[Any]:
        return spaces.Discrete(3) if self.discrete else spaces.Box(-1.0, 1.0, (1,), np.float32)

    def wanted(self, actions: NDArray[Any]) -> Floats:
        """Positions that actions of n players mean, not yet rounded, shape (n,)."""
        return actions.astype(np.float64).reshape(-1) - (1.0 if self.discrete else 0.0)


def episode_starts(bars: Bars, complete: Flags, length: int) -> Rows:
    """Rows with features that `length` bars with features follow within their stretch."""
    rows = np.arange(max(0, len(bars) - length))
    known = np.concatenate([[0], np.cumsum(complete)])
    unbroken = bars.segments[rows] == bars.segments[rows + length]
    with_features = known[rows + length + 1] - known[rows] == length + 1
    return np.asarray(rows[unbroken & with_features])


class VectorTradingEnv(VecEnv):
    """n episodes at once; one that ends begins anew elsewhere."""

    render_mode = None

    def __init__(self, arena: TradingEpisodes, players: int, rng: np.random.Generator) -> None:
        super().__init__(players, arena.observation_space, arena.action_space)
        self.arena, self._rng = arena, rng
        self._rows, self._ends = np.zeros(players, np.int64), np.zeros(players, np.int64)
        self._books = np.tile(BLANK, (players, 1))
        self._wanted = np.zeros(players)

    def reset(self) -> Singles:
        self._begin(np.arange(self.num_envs))
        return self._seen()

    def step_async(self, actions: NDArray[Any]) -> None:
        self._wanted = self.arena.wanted(actions)

    def step_wait(self) -> tuple[Singles, Floats, Flags, list[dict[str, Any]]]:
        arena, rewards = self.arena, np.empty(self.num_envs)
        last = self._rows + 1 == self._ends
        play_bar(self._wanted, self._rows, last, self._books, arena.market, arena.play, rewards)
        ruined = self._books[:, EQUITY] <= LEAST
        done = last | ruined
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        seen = self._seen()
        ended = np.flatnonzero(done)
        if len(ended):
            for player in ended:
                infos[player] = {
                    "terminal_observation": seen[player].copy(),
                    "TimeLimit.truncated": not ruined[player],
                }
            self._begin(ended)
            seen = self._seen()
        return seen, rewards, done, infos

    def _begin(self, players: Rows) -> None:
        self._rows[players] = self._rng.choice(self.arena.starts, len(players))
        self._ends[players] = self._rows[players] + self.arena.length
        self._books[players] = BLANK

    def _seen(self) -> Singles:
        seen = np.empty((self.num_envs, self.arena.width), np.float32)
        look(seen, self.arena.features, self._rows, self._books, self.arena.market, self.arena.play)
        return seen

    def close(self) -> None:
        """There is nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("the players share their arena: make another environment")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("the players are arrays and have no methods")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))


class TradingEnv(gymnasium.Env[Singles, Any]):
    """One episode at a time, of the same rules."""

    render_mode = None

    def __init__(self, arena: TradingEpisodes) -> None:
        self.arena = arena
        self.observation_space, self.action_space = arena.observation_space, arena.action_space
        self._row, self._end = np.zeros(1, np.int64), 0
        self._book = BLANK[None].copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Singles, dict[str, Any]]:
        """Begin at a row drawn, or at `options["row"]`."""
        super().reset(seed=seed)
        row = options["row"] if options and "row" in options else self.np_random.choice(self.arena.starts)
        self._row[:], self._end = row, int(row) + self.arena.length
        self._book[:] = BLANK
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Singles, float, bool, bool, dict[str, Any]]:
        arena, reward = self.arena, np.empty(1)
        last = self._row + 1 == self._end
        play_bar(
            arena.wanted(np.asarray(action)), self._row, last, self._book, arena.market, arena.play, reward
        )
        ruined = bool(self._book[0, EQUITY] <= LEAST)
        return self._seen(), float(reward[0]), ruined, bool(last[0]) and not ruined, {}

    def _seen(self) -> Singles:
        seen = np.empty((1, self.arena.width), np.float32)
        look(seen, self.arena.features, self._row, self._book, self.arena.market, self.arena.play)
        return seen.reshape(-1)
