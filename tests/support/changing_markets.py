"""A market of daily bars with two edges, whose strengths change from phase to phase."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate

import numpy as np

from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe

START = datetime(2022, 1, 1, tzinfo=UTC)
SIGMA = 0.02
"""Standard deviation of a day's log return without the edges."""
HALF_LIFE = 3
"""Half-life of the hidden states, days."""


@dataclass(frozen=True)
class Phase:
    """Days in which the edges keep their strengths."""

    days: int
    of_location: float
    """Drift of a day per unit of the state that the location of the close announces, in `SIGMA`."""
    of_volume: float
    """Drift of a day per unit of the state that the volume announces, in `SIGMA`."""


def changing_market(symbol: str, phases: Sequence[Phase], seed: int) -> Bars:
    """Daily bars of a random walk whose drift follows two hidden states of the day before.

    The location of the close between low and high announces one state, the volume the other.
    """
    days = [each.days for each in phases]
    count = sum(days)
    rng = np.random.default_rng(seed)
    location = _state(count, rng)
    loudness = _state(count, rng)
    strengths = [
        np.repeat([getattr(each, name) for each in phases], days) for name in ("of_location", "of_volume")
    ]
    returns = SIGMA * rng.normal(size=count)
    returns[1:] += SIGMA * (strengths[0][1:] * location[:-1] + strengths[1][1:] * loudness[:-1])
    close = 100.0 * np.exp(np.cumsum(returns))
    opened = np.concatenate([[100.0], close[:-1]])
    top = np.maximum(opened, close)
    bottom = np.minimum(opened, close)
    share = 1.0 / (1.0 + np.exp(-location))
    span = 1.5 * np.log(top / bottom) + SIGMA
    return Bars(
        symbol,
        Timeframe.D1,
        Calendar.ALWAYS,
        int(START.timestamp()) * 10**9 + np.arange(count, dtype=np.int64) * Timeframe.D1.nanoseconds,
        opened,
        np.maximum(close * np.exp((1.0 - share) * span), top),
        np.minimum(close * np.exp(-share * span), bottom),
        close,
        1000.0 * np.exp(0.7 * loudness + rng.normal(0.0, 0.2, count)),
    )


def _state(count: int, rng: np.random.Generator) -> Floats:
    """Autoregression of variance 1, shape (count,)."""
    decay = 0.5 ** (1.0 / HALF_LIFE)
    shocks = rng.normal(0.0, np.sqrt(1.0 - decay * decay), count)
    shocks[0] = rng.normal()
    return np.array(list(accumulate(shocks.tolist(), lambda state, shock: shock + decay * state)))
