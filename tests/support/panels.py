"""Panels of made-up markets."""

from collections.abc import Sequence

import numpy as np

from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.market.timeframes import Calendar, Timeframe

HOUR = Timeframe.H1.nanoseconds
START = 1_704_067_200_000_000_000
"""2024-01-01 00:00 UTC, nanoseconds since 1970."""


def a_market(symbol: str, bars: int, seed: int, first: int = 0, momentum: float = 0.0) -> Bars:
    """Hourly bars of a random walk.

    Args:
        first: hours from 2024 on to the first bar.
        momentum: share of each return that the next return repeats.
    """
    rng = np.random.default_rng(seed)
    returns = rng.normal(0.0, 0.006, bars)
    for row in range(1, bars):
        returns[row] += momentum * returns[row - 1]
    close = 100.0 * np.exp(np.cumsum(returns))
    opened = np.concatenate([[100.0], close[:-1]])
    spread = np.exp(rng.uniform(0.0, 0.002, bars))
    return Bars(
        symbol,
        Timeframe.H1,
        Calendar.ALWAYS,
        START + HOUR * (first + np.arange(bars)),
        opened,
        np.maximum(opened, close) * spread,
        np.minimum(opened, close) / spread,
        close,
        rng.uniform(1.0, 2.0, bars),
    )


def a_panel(
    symbols: Sequence[str], bars: int, seed: int = 1, momentum: float = 0.0, name: str = "POOL"
) -> Panel:
    """Markets of the same length, independent of each other."""
    return Panel(
        name,
        tuple(a_market(symbol, bars, seed + number, 0, momentum) for number, symbol in enumerate(symbols)),
    )
