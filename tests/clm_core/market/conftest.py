"""Random walks for tests, with the irregularities of real series, outages included."""

from collections.abc import Callable

import numpy as np
import pytest

from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe

HOUR = 3_600_000_000_000
MakeWalk = Callable[..., Bars]


def random_walk(n: int, seed: int = 0, outages: tuple[int, ...] = ()) -> Bars:
    """Hourly bars from 2020-01-01, some without movement or trades, eight missing before each outage row."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.005, n) * (rng.random(n) > 0.05)
    steps[n // 2 : n // 2 + 8] = 0.0
    close = 40_000 * np.exp(np.cumsum(steps))
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.0005, n) * (steps != 0))
    high = np.maximum(open_, close) * (1 + rng.exponential(0.002, n) * (steps != 0))
    low = np.minimum(open_, close) / (1 + rng.exponential(0.002, n) * (steps != 0))
    volume = rng.lognormal(3, 1, n) * (rng.random(n) > 0.1)
    missing = np.zeros(n, dtype=np.int64)
    missing[list(outages)] = 8
    time = 1_577_836_800_000_000_000 + (np.arange(n) + np.cumsum(missing)) * HOUR
    return Bars("TEST", Timeframe.H1, Calendar.ALWAYS, time, open_, high, low, close, volume)


@pytest.fixture(scope="session")
def make_walk() -> MakeWalk:
    return random_walk


@pytest.fixture(scope="session")
def walk() -> Bars:
    """900 bars in three stretches: 400, 60 (too short for most warm-ups) and 440."""
    return random_walk(900, outages=(400, 460))
