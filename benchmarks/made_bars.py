"""Bars of any number for benchmarks, made of the bundled ones."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData


@cache
def bars_of(n_bars: int) -> Bars:
    """Bundled hourly BTCUSD bars, forwards and backwards in turn up to the number needed."""
    with TemporaryDirectory() as home:
        real = MarketData(Path(home)).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))
    tiles = n_bars // len(real) + 1
    prices = np.column_stack([real.open, real.high, real.low, real.close])
    # backwards, open and close change places
    backwards = prices[::-1, [3, 1, 2, 0]]
    rows = np.vstack([prices if tile % 2 == 0 else backwards for tile in range(tiles)])[:n_bars]
    times = np.arange(n_bars, dtype=np.int64) * real.timeframe.nanoseconds
    opened, high, low, close = (np.ascontiguousarray(column) for column in rows.T)
    volume = np.ones(n_bars)
    return Bars("BTCUSD", real.timeframe, real.calendar, times, opened, high, low, close, volume)
