"""Bars and trades of a shadow that count as evidence: late positions add none."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from panels import a_market

from clm_core.backtest.terms import MarketTerms
from clm_core.domain.terms import TradingTerms
from clm_core.retraining.shadow_tracks import RecipeTrack, _exits

BARS = a_market("LATEUSD", 60, 1)
POSITIONS = np.sign(np.sin(np.arange(60) / 3.0)).round()
RESULT = MarketTerms(TradingTerms()).backtest(BARS, POSITIONS)
EVERY = np.ones(60, dtype=np.bool_)
IN_TIME = RecipeTrack(BARS, POSITIONS, EVERY, EVERY)


@given(st.sets(st.integers(0, 59), max_size=20))
def test_more_late_positions_add_neither_bars_nor_trades(late: set[int]) -> None:
    in_time = np.ones(60, dtype=np.bool_)
    in_time[list(late)] = False
    track = replace(IN_TIME, in_time=in_time)
    assert not (track.earned & ~IN_TIME.earned).any()
    assert set(_exits(track, RESULT)) <= set(_exits(IN_TIME, RESULT))
    # a bar is earned on the position of the bar before
    assert np.flatnonzero(~track.earned).tolist() == sorted({0, *(row + 1 for row in late if row < 59)})


def test_a_trade_with_a_single_late_bar_is_no_evidence_and_an_open_one_is_none() -> None:
    trades = RESULT.trades
    whole = _exits(IN_TIME, RESULT)
    assert len(whole) == trades.ended
    first = int(trades.entry_bar[1])
    late = np.ones(60, dtype=np.bool_)
    late[first - 1] = False
    assert len(_exits(replace(IN_TIME, in_time=late), RESULT)) < len(whole)
