"""Measures of a shadow record."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from clm_core.backtest.terms import MarketTerms
from clm_core.decisions.shadow import (
    MOST_BARS,
    ChampionComparison,
    ShadowPerformance,
    compare,
    count_late,
    differing_rows,
    measure,
    min_common_bars,
)
from clm_core.domain.costs import Costs
from clm_core.domain.shadows import ShadowRecord, empty_record
from clm_core.domain.terms import TradingTerms
from clm_core.evidence.paired import Standing
from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData
from clm_core.market.timeframes import Timeframe

FREE = MarketTerms(TradingTerms(costs=Costs(fee_bps=0, slippage_bps=0)))
HOUR = Timeframe.H1.nanoseconds
MINUTE = 60 * 10**9


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Bars:
    market = MarketData(tmp_path_factory.mktemp("home"))
    return market.bars("BTCUSD", "1h", closed_by=datetime.now(UTC))[-600:]


def written(positions: list[float], delays: list[int] | None = None) -> ShadowRecord:
    """Record on hourly bars, with delays in minutes after the close of each bar."""
    time = np.arange(len(positions), dtype=np.int64) * HOUR
    waited = np.array(delays or [2] * len(positions), dtype=np.int64) * MINUTE
    return ShadowRecord(time, np.array(positions), time + HOUR + waited)


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        pytest.param([2, 59, 60], 0, id="before the next bar had closed"),
        pytest.param([2, 61, 60 * 24], 2, id="after it"),
    ],
)
def test_a_position_recorded_more_than_a_bar_after_the_close_is_late(
    delays: list[int], expected: int
) -> None:
    assert count_late(written([0.0] * 3, delays), Timeframe.H1) == expected


def test_an_empty_record_has_no_late_position() -> None:
    assert count_late(empty_record(), Timeframe.H1) == 0


@pytest.mark.parametrize(
    ("now", "rows"),
    [
        pytest.param([0.5, -1.0, 0.0], [], id="the same"),
        pytest.param([0.5 + 1e-9, -1.0, 0.0], [], id="rounded otherwise"),
        pytest.param([0.5, -1.0, 1.0], [2], id="another"),
        pytest.param([np.nan, -1.0, 0.0], [0], id="none"),
    ],
)
def test_a_position_differs_only_beyond_rounding(now: list[float], rows: list[int]) -> None:
    assert differing_rows(written([0.5, -1.0, 0.0]), np.array(now)).tolist() == rows


@pytest.mark.parametrize(
    ("minutes", "rows"),
    [
        pytest.param(-1, 2, id="a minute before the second bar closes"),
        pytest.param(0, 1, id="the moment it closes"),
        pytest.param(1, 1, id="a minute after"),
    ],
)
def test_bars_closed_before_the_registration_do_not_count(minutes: int, rows: int, bars: Bars) -> None:
    [*_, last] = bars[:3].index
    registered = last.to_pydatetime() + timedelta(minutes=minutes)
    assert len(bars[:3]) - bars[:3].row_closed_after(registered) == rows
    assert len(bars[:3].closed_by(registered)) == 3 - rows


def test_an_empty_record_has_no_measures(bars: Bars) -> None:
    assert measure(bars[:0], np.zeros(0), FREE) == ShadowPerformance()


def beside(bars: Bars, ours: float, theirs: float) -> ChampionComparison:
    """Comparison of positions that foresee the next bar, scaled by `ours` and `theirs`."""
    foresight = np.sign(np.append(np.diff(bars.open)[1:], [0.0, 0.0]))
    rng = np.random.default_rng(1)
    return compare("v1", bars, ours * foresight, theirs * foresight, (FREE, FREE), rng)


@pytest.mark.parametrize(
    ("ours", "theirs", "lead"),
    [
        pytest.param(1.0, -1.0, Standing.BETTER, id="better"),
        pytest.param(-1.0, 1.0, Standing.WORSE, id="worse"),
        pytest.param(1.0, 1.0, Standing.UNDECIDED, id="the same"),
        pytest.param(1.0, 0.3, Standing.UNDECIDED, id="larger positions"),
    ],
)
def test_a_lead_is_found_where_there_is_one(ours: float, theirs: float, lead: Standing, bars: Bars) -> None:
    seen = beside(bars, ours, theirs)
    assert seen.lead is lead
    assert seen.ours.bars == seen.theirs.bars == len(bars)
    assert seen.difference is not None
    low, high = seen.difference
    assert low <= seen.ours.sharpe_ratio - seen.theirs.sharpe_ratio <= high  # type: ignore[operator]


def test_few_common_bars_are_too_early_for_a_comparison(bars: Bars) -> None:
    early, enough = (beside(bars[:count], 1.0, -1.0) for count in (MOST_BARS - 1, MOST_BARS))
    assert (early.lead, early.difference) == (None, None)
    assert early.ours.sharpe_ratio is not None
    assert enough.lead is Standing.BETTER
    assert early.min_bars == enough.min_bars == MOST_BARS


@pytest.mark.parametrize(
    ("bars_a_day", "needed"), [(96, 240), (24, 240), (6, 180), (1, 100), (1 / 7, 100)], ids=str
)
def test_fewer_common_bars_of_a_long_timeframe_are_enough(bars_a_day: float, needed: int) -> None:
    assert min_common_bars(bars_a_day * 365.25) == needed
