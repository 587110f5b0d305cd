"""Planted market: a made-up series with a known edge, to show a newcomer a verdict that passes.

The price is a random walk whose drift follows a hidden state s, an autoregression with a half-life of 36
bars:

    log return(t) = sigma (edge s(t - 1) + e(t)),    log volume(t) = loudness s(t) + noise

so the traded volume announces the drift of the next day. A trader who knew s would earn a Sharpe ratio of
about edge * sqrt(8,760) before costs. No real market is like this.
"""

from itertools import accumulate

import numpy as np
import pandas as pd

from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe

SYMBOL = "PLANTED"
START = "2017-07-01"
HALF_LIFE = 36
"""Half-life of the hidden state, bars."""
SIGMA = 0.005
"""Standard deviation of a bar's log return: 47 % a year."""
EDGE = 0.2
"""Drift of a bar per unit of the hidden state, in standard deviations of the return."""
LOUDNESS = 0.5
"""Log volume per unit of the hidden state."""
DECAY = 0.5 ** (1.0 / HALF_LIFE)
"""Share of the hidden state that is left a bar later."""
STEPS_A_BAR = 12
"""Prices drawn inside each bar, for highs and lows."""


def planted_bars(n_bars: int, seed: int = 0) -> Bars:
    """The series `PLANTED 1h`, n_bars long; the same seed gives the same bars."""
    rng = np.random.default_rng(seed)
    state = _hidden_state(n_bars + 1, rng)
    drift = EDGE * SIGMA * state[:-1]
    noise = rng.normal(0.0, SIGMA / np.sqrt(STEPS_A_BAR), (n_bars, STEPS_A_BAR))
    path = np.cumsum(noise + drift[:, None] / STEPS_A_BAR, axis=1)
    opened = np.concatenate([[0.0], np.cumsum(path[:-1, -1])])
    prices = np.round(100.0 * np.exp(opened[:, None] + np.column_stack([np.zeros(n_bars), path])), 4)
    volume = np.round(1000.0 * np.exp(LOUDNESS * state[1:] + rng.normal(0.0, 0.25, n_bars)), 1)
    time = pd.Timestamp(START, tz="UTC").value + np.arange(n_bars) * Timeframe.H1.nanoseconds
    return Bars(
        SYMBOL,
        Timeframe.H1,
        Calendar.ALWAYS,
        time,
        open=prices[:, 0].copy(),
        high=prices.max(axis=1),
        low=prices.min(axis=1),
        close=prices[:, -1].copy(),
        volume=volume,
    )


def _hidden_state(n: int, rng: np.random.Generator) -> Floats:
    """Hidden state: a stationary autoregression of variance 1, shape (n,)."""
    shocks = rng.normal(0.0, np.sqrt(1.0 - DECAY**2), n)
    shocks[0] = rng.normal()
    return remembered(shocks, DECAY)


def remembered(shocks: Floats, decay: float) -> Floats:
    """Autoregression begun at the first shock, shape (n,).

    Args:
        decay: share of a value that is left a bar later.
    """
    # the answer of scipy.signal.lfilter to the last bit, without the seconds of its import
    return np.array(list(accumulate(shocks.tolist(), lambda state, shock: shock + decay * state)))
