from collections.abc import Callable

import numpy as np
import pytest

from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe

MakeBars = Callable[..., Bars]


@pytest.fixture(scope="session")
def make_bars() -> MakeBars:
    """Bars from rows of (open, high, low, close), or from closes, each bar opening at the close before."""

    def make(rows: Floats) -> Bars:
        prices = np.array(rows, dtype=float)
        if prices.ndim == 1:
            opens = np.append(prices[:1], prices[:-1])
            prices = np.column_stack([opens, np.maximum(opens, prices), np.minimum(opens, prices), prices])
        times = np.arange(len(prices), dtype=np.int64) * Timeframe.H1.nanoseconds
        columns = (np.ascontiguousarray(column) for column in prices.T)
        return Bars("TEST", Timeframe.H1, Calendar.ALWAYS, times, *columns, np.ones(len(prices)))

    return make
