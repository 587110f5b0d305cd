"""Made worlds for searches of strategies: hourly bars without an edge, and with a planted one.

Without an edge every return has mean zero: whatever a rule has done before a bar, it earns nothing on it but
its costs. With an edge the price drifts with the position of a rule at its true parameters: a trade moves the
price its way for as long as the rule holds it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numba import njit
from numpy.random import Generator

from clm_core.domain.vocabulary import RuleFamily
from clm_core.market.bars import Bars, Floats
from clm_core.market.sources import MarketData
from clm_core.market.timeframes import Calendar, Timeframe

YEAR = 8_760
DEVIATION = 0.5 / math.sqrt(YEAR)
"""Standard deviation of a bar's log return: 50 % a year."""
START = "2019-01-01"


def normal(n_bars: int, rng: Generator) -> Floats:
    return rng.standard_normal(n_bars)


def heavy_tails(n_bars: int, rng: Generator) -> Floats:
    """Student's t with three degrees of freedom."""
    return rng.standard_t(3.0, n_bars) / math.sqrt(3.0)


def clustered(n_bars: int, rng: Generator) -> Floats:
    """GARCH(1, 1) with the persistence 0.99."""
    return _garch(rng.standard_normal(n_bars))


def shuffled(n_bars: int, rng: Generator) -> Floats:
    """Returns of the bundled BTCUSD bars, drawn with replacement and with a random sign."""
    with TemporaryDirectory() as home:
        close = MarketData(Path(home)).bars("BTCUSD", "1h", closed_by=datetime.now(UTC)).close
    moves = np.diff(np.log(close))
    drawn = rng.choice(np.abs(moves), n_bars) * rng.choice([-1.0, 1.0], n_bars)
    return np.asarray(drawn / moves.std())


@njit(cache=True)
def _garch(noise: Floats) -> Floats:
    moves = np.empty(len(noise))
    variance = 1.0
    for bar in range(len(noise)):
        moves[bar] = math.sqrt(variance) * noise[bar]
        variance = 0.01 + 0.09 * moves[bar] ** 2 + 0.9 * variance
    return moves


NO_EDGE: dict[str, Callable[[int, Generator], Floats]] = {
    "normal": normal,
    "heavy tails": heavy_tails,
    "volatility clusters": clustered,
    "shuffled BTCUSD": shuffled,
}
"""Standardised returns without an edge, shape (n_bars,)."""


@dataclass(frozen=True)
class Planted:
    """A world in which a momentum rule moves the price."""

    edge: float
    """Drift of a bar to the side of the trade, in standard deviations of the return."""
    look_back: int
    threshold: float
    stop_loss: float
    take_profit: float
    max_holding: int

    @property
    def params(self) -> dict[str, Any]:
        names = ("look_back", "threshold", "stop_loss", "take_profit", "max_holding")
        return {name: getattr(self, name) for name in names}

    def bars(self, symbol: str, n_bars: int, seed: int) -> Bars:
        noise = np.random.default_rng(seed).standard_normal(n_bars)
        moves = _moved(
            noise,
            self.edge,
            DEVIATION,
            self.look_back,
            self.threshold,
            self.stop_loss,
            self.take_profit,
            self.max_holding,
        )
        return bars_of_returns(symbol, moves, seed)


@njit(cache=True)
def _moved(
    noise: Floats,
    edge: float,
    deviation: float,
    look_back: int,
    threshold: float,
    stop_loss: float,
    take_profit: float,
    max_holding: int,
) -> Floats:
    """Log returns that drift with the trade open after the bar before, shape (n_bars,).

    The trades are those of `models.strategies.rules`, with each open at the close before.
    """
    n_bars = len(noise)
    moves = np.empty(n_bars)
    close = np.empty(n_bars)
    level = 0.0
    side = 0.0
    begun = 0
    price = 1.0
    before = 0.0
    for bar in range(n_bars):
        opened = math.exp(level)
        moves[bar] = deviation * (edge * side + noise[bar]) - 0.5 * deviation**2
        level += moves[bar]
        close[bar] = math.exp(level)
        score = close[bar] / close[bar - look_back] - 1.0 if bar >= look_back else 0.0
        if side != 0.0:
            if bar == begun + 1:
                price = opened
            move = side * (close[bar] / price - 1.0)
            is_out = move <= -stop_loss or move >= take_profit or bar - begun >= max_holding
            if is_out or side * score < 0.0:
                side = 0.0
        if score > threshold and before <= threshold:
            side = 1.0
            begun = bar
        elif score < -threshold and before >= -threshold:
            side = -1.0
            begun = bar
        before = score
    return moves


PLANTED = Planted(edge=0.033, look_back=48, threshold=0.04, stop_loss=0.04, take_profit=0.12, max_holding=120)
FAMILY = RuleFamily.MOMENTUM


def without_edge(process: str, symbol: str, n_bars: int, seed: int) -> Bars:
    """Bars of a process of `NO_EDGE`."""
    moves = NO_EDGE[process](n_bars, np.random.default_rng(seed))
    returns = DEVIATION * moves
    # a simple return of mean zero: a holder gains nothing on average
    return bars_of_returns(symbol, returns - np.log(np.mean(np.exp(returns))), seed)


def bars_of_returns(symbol: str, returns: Floats, seed: int) -> Bars:
    """Hourly bars of log returns, each opening at the close before."""
    closes = np.cumsum(returns)
    opens = np.concatenate([[0.0], closes[:-1]])
    beyond = DEVIATION * np.abs(np.random.default_rng([seed, 1]).standard_normal((2, len(returns)))) / 2.0
    logs = (opens, np.maximum(opens, closes) + beyond[0], np.minimum(opens, closes) - beyond[1], closes)
    time = (
        pd.Timestamp(START, tz="UTC").value
        + np.arange(len(returns), dtype=np.int64) * Timeframe.H1.nanoseconds
    )
    opened, high, low, close = (100.0 * np.exp(each) for each in logs)
    volume = np.ones(len(returns))
    return Bars(symbol, Timeframe.H1, Calendar.ALWAYS, time, opened, high, low, close, volume)
