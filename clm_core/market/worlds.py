"""Worlds: made-up hourly markets like the planted market, whose edge is known at every bar.

    log return(t) = sigma (strength(t) edge s(t - 1) + e(t) + ahead(t))

The volume announces the hidden state s, as in `market.planted`. The strength is 1 while the edge lives, 0
where there is none, and -1 after the volume has begun to announce the opposite. Where an edge has died, the
price moves with the volume, ahead(t), and falls back: whoever follows the volume buys too late, and the
strength is below 0. Given the hidden state, the expected return of a bar is exp(sigma strength edge s) - 1:
without an edge nothing is earned but by luck.

In the turning world two hidden states drive the price. The volume announces s, the range of the bars r:

    log return(t) = sigma (edge (cos(angle) s(t - 1) + sin(angle) r(t - 1)) + e(t))

The angle makes a turn in `TURN_DAYS`, so the edge lives, and each training on the newest bars knows more of
what the next bars follow than the training before.
"""

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from clm_core.domain.vocabulary import KnownWorld
from clm_core.market.bars import Bars, Floats
from clm_core.market.planted import LOUDNESS, SIGMA, STEPS_A_BAR, remembered
from clm_core.market.timeframes import Calendar, Timeframe

EDGE = 0.15
"""Drift of a bar per unit of the hidden state, in standard deviations of the return."""
HALF_LIFE = 96
"""Half-life of the hidden state, bars."""
DECAY = 0.5 ** (1.0 / HALF_LIFE)
TOO_LATE = 0.6
"""Drift against the volume where an edge has died, as a share of the drift with it before."""

TURN_DAYS = 4 * 365
"""Days of a turn of the turning world: what a year of bars teaches, half of it holds a quarter later."""


@dataclass(frozen=True, eq=False)
class KnownMarket:
    """Bars of a world with the knowledge of the world."""

    bars: Bars
    strength: Floats
    """Strength of the edge at each bar: 1 alive, 0 none, below 0 with losses, shape (n_bars,)."""
    expected: Floats
    """Expected return of each bar given the hidden state before the bar, a fraction, shape (n_bars,)."""


def known_market(world: KnownWorld, seed: int, start: datetime, n_bars: int, change: datetime) -> KnownMarket:
    """A world from its start; the same seed and start give the same bars, however many.

    Args:
        start: open time of the first bar, in UTC.
        change: time from which the edge is dead or reversed, in a world whose edge changes.
    """
    state, inside, loud = (np.random.default_rng([seed, part]) for part in range(3))
    time = int(start.timestamp()) * 10**9 + np.arange(n_bars, dtype=np.int64) * Timeframe.H1.nanoseconds
    is_changed = time >= int(change.timestamp()) * 10**9
    before, after = _strengths(world)
    strength = np.where(is_changed, after, before)
    shocks = _shocks(state, n_bars)
    hidden = remembered(shocks, DECAY)
    drift = strength * EDGE * SIGMA * hidden[:-1]
    noise = inside.normal(0.0, SIGMA / np.sqrt(STEPS_A_BAR), (n_bars, STEPS_A_BAR))
    if world is KnownWorld.TURNING:
        ranged = remembered(_shocks(np.random.default_rng([seed, 3]), n_bars), DECAY)
        angle = 2.0 * np.pi * (time - time[0]) / (TURN_DAYS * 86_400e9)
        drift = EDGE * SIGMA * (np.cos(angle) * hidden[:-1] + np.sin(angle) * ranged[:-1])
        # wider or narrower inside the bar, with the same close
        middle = noise.mean(axis=1, keepdims=True)
        noise = middle + (noise - middle) * np.exp(LOUDNESS * ranged[1:])[:, None]
    # a move with the hidden state, of which the share 1 - DECAY is lost in each bar after
    reach = np.where(is_changed & (world is KnownWorld.DYING), TOO_LATE * EDGE * SIGMA / (1.0 - DECAY), 0.0)
    variance = SIGMA**2 + reach**2 * (1.0 - DECAY**2)
    # a simple return of mean zero without the drift: holding earns nothing on average
    even = drift + reach * shocks[1:] - variance / 2.0
    path = np.cumsum(noise + even[:, None] / STEPS_A_BAR, axis=1)
    opened = np.concatenate([[0.0], np.cumsum(path[:-1, -1])])
    prices = 100.0 * np.exp(opened[:, None] + np.column_stack([np.zeros(n_bars), path]))
    volume = np.round(1000.0 * np.exp(LOUDNESS * hidden[1:] + loud.normal(0.0, 0.25, n_bars)), 1)
    columns = (prices[:, 0].copy(), prices.max(axis=1), prices.min(axis=1), prices[:, -1].copy(), volume)
    bars = Bars(world.symbol, Timeframe.H1, Calendar.ALWAYS, time, *columns)
    return KnownMarket(bars, strength, np.expm1(drift))


def _shocks(state: np.random.Generator, n_bars: int) -> Floats:
    """Shocks of a hidden state of variance 1, with the start as the first shock, shape (n_bars + 1,)."""
    shocks = state.normal(size=n_bars + 1)
    shocks[1:] *= math.sqrt(1.0 - DECAY**2)
    return shocks


def _strengths(world: KnownWorld) -> tuple[float, float]:
    """Strength of the edge before and after the change."""
    return {
        KnownWorld.PLANTED: (1.0, 1.0),
        KnownWorld.DYING: (1.0, -TOO_LATE),
        KnownWorld.MOVING: (1.0, -1.0),
        KnownWorld.TURNING: (1.0, 1.0),
        KnownWorld.NONE: (0.0, 0.0),
    }[world]
