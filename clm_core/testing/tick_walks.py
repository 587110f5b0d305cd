"""Driftless walks on a tick grid, on which no kind of model can prefer one direction."""

from dataclasses import replace

import numpy as np

from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe

START = 2_000
"""Price at the start, in ticks: far from 0, so that a tick is about the same fraction of every price."""
TICK = 0.05


def tick_walk(n_bars: int, standstill: float, seed: int, timeframe: Timeframe = Timeframe.H1) -> Bars:
    """Bars from 2020-01-01, by default hourly, whose close moves by -1, 0 or +1 ticks.

    Args:
        standstill: probability of a step of 0; the other steps are equally likely.
    """
    rng = np.random.default_rng(seed)
    moving = (1 - standstill) / 2
    close = START + np.cumsum(rng.choice([-1, 0, 1], n_bars, p=[moving, standstill, moving]))
    open_ = np.concatenate([[START], close[:-1]])
    wick = rng.integers(0, 2, (2, n_bars))
    high = np.maximum(open_, close) + wick[0]
    low = np.minimum(open_, close) - wick[1]
    time = 438_288 * Timeframe.H1.nanoseconds + np.arange(n_bars) * timeframe.nanoseconds
    volume = rng.integers(0, 50, n_bars).astype(np.float64)
    return Bars(
        "TICKS",
        timeframe,
        Calendar.ALWAYS,
        time,
        open=TICK * open_,
        high=TICK * high,
        low=TICK * low,
        close=TICK * close,
        volume=volume,
    )


def mirror_image(bars: Bars) -> Bars:
    """The walk mirrored at the price of the start: each rise becomes a fall of as many ticks."""

    def mirrored(prices: Floats) -> Floats:
        return TICK * (2 * START - np.rint(prices / TICK))

    return replace(
        bars,
        open=mirrored(bars.open),
        high=mirrored(bars.low),
        low=mirrored(bars.high),
        close=mirrored(bars.close),
    )
