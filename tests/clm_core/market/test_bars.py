import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.market.bars import Bars, Gap
from clm_core.market.timeframes import Calendar, Timeframe, closing_slots

HOUR = 3_600_000_000_000


def bars_at(*times: str, timeframe: Timeframe = Timeframe.H1, calendar: Calendar = Calendar.ALWAYS) -> Bars:
    time = np.array([pd.Timestamp(text, tz="UTC").as_unit("ns").value for text in times], dtype=np.int64)
    ones = [np.ones(len(time)) for _ in range(5)]
    return Bars("TEST", timeframe, calendar, time, *ones)


@pytest.mark.parametrize(
    ("newest", "now", "timeframe", "calendar", "missing"),
    [
        pytest.param("2024-01-01 10:00", "2024-01-01 10:30", "1h", "24x7", 0, id="under way"),
        pytest.param("2024-01-01 10:00", "2024-01-01 11:59", "1h", "24x7", 0, id="the next is under way"),
        pytest.param("2024-01-01 10:00", "2024-01-01 14:00", "1h", "24x7", 3, id="three late"),
        pytest.param("2024-01-05 20:00", "2024-01-07 12:00", "1h", "24x5", 0, id="weekend"),
        pytest.param("2024-01-05 20:00", "2024-01-08 03:30", "1h", "24x5", 4, id="after the weekend"),
        pytest.param("2024-01-01", "2024-01-05 09:00", "1d", "24x7", 3, id="days"),
        pytest.param("2024-01-01 10:00", "2023-12-31", "1h", "24x7", 0, id="before the newest"),
    ],
)
def test_missing_newest_bars_are_counted_by_the_calendar(newest, now, timeframe, calendar, missing):
    bars = bars_at(newest, timeframe=Timeframe(timeframe), calendar=Calendar(calendar))
    assert bars.missing_until(pd.Timestamp(now, tz="UTC").to_pydatetime()) == missing
    assert bars[:0].missing_until(pd.Timestamp(now, tz="UTC").to_pydatetime()) == 0


@pytest.mark.parametrize(
    ("times", "timeframe", "calendar", "segments"),
    [
        pytest.param(["2024-01-01 00:00", "2024-01-01 01:00"], "1h", "24x7", [0, 0], id="neighbours"),
        pytest.param(["2024-01-01 00:00", "2024-01-01 06:00"], "1h", "24x7", [0, 0], id="five bars missing"),
        pytest.param(["2024-01-01 00:00", "2024-01-01 07:00"], "1h", "24x7", [0, 1], id="six bars missing"),
        pytest.param(["2024-01-05 21:00", "2024-01-07 22:00"], "1h", "24x5", [0, 0], id="weekend in winter"),
        pytest.param(["2024-07-05 20:00", "2024-07-07 21:00"], "1h", "24x5", [0, 0], id="weekend in summer"),
        pytest.param(["2024-01-05 14:00", "2024-01-07 22:00"], "1h", "24x5", [0, 1], id="closed too early"),
        pytest.param(["2024-01-05 21:00", "2024-01-08 05:00"], "1h", "24x5", [0, 1], id="opened too late"),
        pytest.param(["2024-01-05 21:00", "2024-01-14 22:00"], "1h", "24x5", [0, 1], id="a week missing"),
        pytest.param(
            ["2024-01-05 21:00", "2024-01-07 22:00"], "1h", "24x7", [0, 1], id="crypto has no weekend"
        ),
        pytest.param(["2024-01-05 20:00", "2024-01-07 20:00"], "4h", "24x5", [0, 0], id="weekend of 4h bars"),
        pytest.param(["2024-01-05", "2024-01-08"], "1d", "24x5", [0, 0], id="weekend of days"),
        pytest.param(["2024-01-05", "2024-01-09"], "1d", "24x5", [0, 0], id="holiday on a Monday"),
        pytest.param(["2024-01-05", "2024-01-16"], "1d", "24x5", [0, 1], id="six days missing"),
    ],
)
def test_a_gap_starts_a_new_stretch_unless_the_market_was_closed(times, timeframe, calendar, segments):
    bars = bars_at(*times, timeframe=Timeframe(timeframe), calendar=Calendar(calendar))
    assert bars.segments.tolist() == segments


@pytest.mark.parametrize(
    ("times", "segments", "bridged"),
    [
        (["2024-01-03 00:00", "2024-01-03 02:00"], [0, 1], [False, True]),
        (["2024-01-03 20:00", "2024-01-03 23:00"], [0, 1], [False, False]),
        (["2024-12-24 20:00", "2024-12-26 08:00"], [0, 1], [False, False]),
        (["2024-01-05 21:00", "2024-01-07 22:00"], [0, 0], [False, False]),
    ],
    ids=["outage", "daily break", "Christmas", "week-end"],
)
def test_the_rules_of_the_release_before_break_at_every_gap_but_week_ends(times, segments, bridged):
    bars = bars_at(*times, calendar=Calendar.WEEKDAYS)
    assert bars.under(gap_rules=1).segments.tolist() == segments
    assert not bars.under(gap_rules=1).bridged.any()
    assert bars.segments.tolist() == [0, 0]
    assert bars.bridged.tolist() == bridged
    assert bars.under(gap_rules=1).content_hash == bars.content_hash


def test_slices_and_copies_keep_the_gap_rules(walk):
    old = walk.under(gap_rules=1)
    assert (old[5:10].gap_rules, old.last_days(3).gap_rules, walk[5:10].gap_rules) == (1, 1, 2)
    assert walk.under(gap_rules=2) is walk


def test_a_gap_counts_the_bars_that_should_exist_and_not_those_of_the_weekend():
    bars = bars_at("2024-01-05 19:00", "2024-01-07 22:00", "2024-01-07 23:00", calendar=Calendar.WEEKDAYS)
    assert bars.gaps == (Gap(bars.index[0], bars.index[1], missing=1),)
    assert bars.closures == 1


def test_a_weekend_is_a_closure_and_no_gap():
    bars = bars_at("2024-01-05 21:00", "2024-01-07 22:00", calendar=Calendar.WEEKDAYS)
    assert (bars.gaps, bars.closures) == ((), 1)


@pytest.mark.parametrize(
    ("moment", "closed"),
    [("2024-01-01 01:59", 1), ("2024-01-01 02:00", 2), ("2024-01-01 04:59", 2), ("2024-01-01 05:00", 3)],
)
def test_a_bar_is_closed_from_its_open_time_plus_its_timeframe_on(moment, closed):
    bars = bars_at("2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 04:00")
    assert len(bars.closed_by(pd.Timestamp(moment, tz="UTC"))) == closed
    assert bars.row_closed_after(pd.Timestamp(moment, tz="UTC")) == closed


@given(
    first=st.integers(400_000, 500_000),
    hours=st.integers(1, 900),
    timeframe=st.sampled_from([Timeframe.M30, Timeframe.H1, Timeframe.H4, Timeframe.D1]),
)
def test_closing_slots_equal_a_count_slot_by_slot(first, hours, timeframe):
    step = timeframe.nanoseconds
    after = first * HOUR // step * step
    before = after + max(1, hours * HOUR // step) * step
    slots = pd.to_datetime(np.arange(after + step, before, step), utc=True)
    hour_of_week = slots.day_of_week * 24 + slots.hour
    friday_evening = 4 * 24 + 21
    sunday_evening = 6 * 24 + 22
    expected = int(((hour_of_week >= friday_evening) & (hour_of_week < sunday_evening)).sum())
    counted = closing_slots(np.array([after]), np.array([before]), timeframe, Calendar.WEEKDAYS)
    assert counted.tolist() == [expected]


def test_stretches_and_segments_tell_the_same(walk):
    lengths = [rows.stop - rows.start for rows in walk.stretches()]
    assert lengths == np.bincount(walk.segments).tolist() == [400, 60, 440]


def test_bars_without_a_bar_have_no_stretch(walk):
    empty = walk[:0]
    assert (list(empty.stretches()), empty.gaps, len(empty.segments)) == ([], (), 0)


def test_bars_cannot_be_changed(walk):
    with pytest.raises(ValueError, match="read-only"):
        walk.close[0] = 1.0


def test_the_hash_of_known_bars_is_known():
    """A changed hash would detach the lineage of stored versions from the bars."""
    bars = bars_at("2024-01-01 00:00", "2024-01-01 01:00")
    assert bars.content_hash == "d84a2cfe7d225e6fd62e8fcba216fef212f4c36de5624d6faf9a293e16a52cc3"


@pytest.mark.parametrize("name", ["time", "open", "high", "low", "close", "volume"])
def test_the_hash_changes_with_every_value(walk, name):
    arrays = {
        field: getattr(walk, field).copy() for field in ("time", "open", "high", "low", "close", "volume")
    }
    arrays[name][7] = np.nextafter(arrays[name][7], np.inf) if name != "time" else arrays[name][7] + 1
    changed = Bars(walk.symbol, walk.timeframe, walk.calendar, **arrays)
    assert changed.content_hash != walk.content_hash


def test_symbols_timeframes_and_calendars_have_different_hashes(walk):
    arrays = [getattr(walk, field) for field in ("time", "open", "high", "low", "close", "volume")]
    names = [("A", Timeframe.H1, Calendar.ALWAYS), ("B", Timeframe.H1, Calendar.ALWAYS)]
    names += [("A", Timeframe.M1, Calendar.ALWAYS), ("A", Timeframe.H1, Calendar.WEEKDAYS)]
    assert len({Bars(*name, *arrays).content_hash for name in names}) == 4


def test_negative_zero_volume_is_the_same_bar():
    plain = bars_at("2024-01-01")
    signed = bars_at("2024-01-01")
    zero = {"volume": np.array([0.0])}, {"volume": np.array([-0.0])}
    hashes = [
        Bars("A", Timeframe.H1, Calendar.ALWAYS, b.time, b.open, b.high, b.low, b.close, **v).content_hash
        for b, v in zip((plain, signed), zero, strict=True)
    ]
    assert hashes[0] == hashes[1]


def test_the_last_days_reach_back_from_the_last_bar():
    bars = bars_at("2024-01-01 00:00", "2024-01-01 01:00", "2024-01-02 00:00", "2024-01-02 01:00")
    assert bars.last_days(1).index.tolist() == bars.index[2:].tolist()
