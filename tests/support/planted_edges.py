"""Bars whose next returns follow from one feature, so that an explanation has a known answer."""

import numpy as np

from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe

FEATURE = "volume_z_24"
"""Feature that carries the edge."""
DEVIATION = 0.004
"""Standard deviation of the part of a one-bar return without edge."""


def planted_bars(n: int = 2_500, edge: float = 1.0, seed: int = 5) -> Bars:
    """Hourly bars whose return is `edge` deviations for each standard deviation of the volume of the bar
    before, over its mean of 24 bars; volumes come and go over a dozen bars."""
    rng = np.random.default_rng(seed)
    wave = np.zeros(n)
    for t in range(1, n):
        wave[t] = 0.9 * wave[t - 1] + rng.normal()
    volume = np.exp(0.3 * wave + 5)
    score = np.zeros(n)
    for t in range(24, n):
        window = volume[t - 23 : t + 1]
        score[t] = (volume[t] - window.mean()) / window.std()
    steps = DEVIATION * rng.normal(size=n)
    steps[1:] += edge * DEVIATION * score[:-1]
    close = 1000 * np.exp(np.cumsum(steps - steps.mean()))
    open_ = np.concatenate([close[:1], close[:-1]])
    time = np.arange(n, dtype=np.int64) * Timeframe.H1.nanoseconds
    high = np.maximum(open_, close) * 1.001
    low = np.minimum(open_, close) * 0.999
    return Bars("TEST", Timeframe.H1, Calendar.ALWAYS, time, open_, high, low, close, volume)
