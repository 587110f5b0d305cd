"""The planted market: valid bars, the same everywhere, with the edge that the module states."""

from datetime import UTC, datetime

import numpy as np

from clm_core.market.planted import EDGE, HALF_LIFE, SYMBOL, planted_bars
from clm_core.market.sources import MarketData


def test_the_same_seed_gives_the_same_bars():
    assert planted_bars(500).content_hash == planted_bars(500).content_hash
    assert planted_bars(500).content_hash != planted_bars(500, seed=1).content_hash


def test_volume_announces_the_returns_of_the_next_day():
    bars = planted_bars(20_000)
    returns = np.diff(np.log(bars.close))
    ahead = np.array([returns[row : row + HALF_LIFE].sum() for row in range(len(returns) - HALF_LIFE)])
    volume = np.log(bars.volume[: len(ahead)])
    correlation = np.corrcoef(volume, ahead)[0, 1]
    # the sum of the drift over a half-life against the noise of as many bars
    assert EDGE < correlation < 1.0
    assert abs(np.corrcoef(volume[1:], returns[: len(volume) - 1])[0, 1]) < correlation


def test_the_demo_stores_the_series_once(tmp_path):
    market = MarketData(tmp_path)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first = market.add_planted(1000, now)
    again = market.add_planted(2000, now)
    assert (first.symbol, first.source) == (SYMBOL, "planted by clm demo")
    assert again.content_hash == first.content_hash
    assert market.bars(SYMBOL, "1h", closed_by=now).content_hash == first.content_hash
