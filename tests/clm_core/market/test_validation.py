from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from clm_core.domain.errors import InvalidBars
from clm_core.market.bar_rules import STUCK_BARS
from clm_core.market.bars import FIELDS
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.market.validation import examine, validate

NOW = datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
def frame() -> pd.DataFrame:
    """600 good hourly bars from 2024-01-01, rising and falling between 90 and 110."""
    n = 600
    close = 100 + 10 * np.sin(np.arange(n) / 7)
    open_ = np.concatenate([[100.0], close[:-1]])
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC", unit="ns"),
            "open": open_,
            "high": np.maximum(open_, close) + 0.5,
            "low": np.minimum(open_, close) - 0.5,
            "close": close,
            "volume": 5.0 + np.arange(n) % 3,
        }
    )


def check(frame, timeframe=Timeframe.H1, calendar=Calendar.ALWAYS, now=NOW, **options):
    return validate(frame, "BTCUSDT", timeframe, calendar, now=now, origin="a file", **options)


def findings(frame, **options):
    with pytest.raises(InvalidBars) as refusal:
        check(frame, **options)
    return {finding.rule: finding.rows for finding in refusal.value.findings}


def put(row, **values):
    def change(frame):
        for column, value in values.items():
            frame.loc[row, column] = value
        return frame

    return change


def scaled(rows, factor):
    def change(frame):
        frame.loc[rows, ["open", "high", "low", "close"]] *= factor
        return frame

    return change


def stuck(frame):
    frame.loc[100 : 100 + STUCK_BARS - 1, list(FIELDS)] = [100.0, 101.0, 99.0, 100.0, 7.0]
    return frame


def quote_volume(frame):
    frame["volume"] *= np.where(np.arange(len(frame)) < 300, 50_000, 1)
    return frame


def swapped_rows(frame):
    return frame.iloc[[*range(10), 11, 10, *range(12, 600)]]


def paged(frame):
    return frame[np.arange(600) % 50 < 10]


def shifted(offset):
    return lambda frame: frame.assign(timestamp=frame["timestamp"] + pd.Timedelta(offset))


@pytest.mark.parametrize(
    ("change", "rule", "rows"),
    [
        pytest.param(put(3, close=np.nan), "nan", (3,), id="a missing close"),
        pytest.param(put(3, volume=np.nan), "nan", (3,), id="a missing volume"),
        pytest.param(put(3, high=np.inf), "infinite", (3,), id="an infinite high"),
        pytest.param(put(3, low=0.0), "non-positive-price", (3,), id="a price of zero"),
        pytest.param(put(3, low=-1.0), "non-positive-price", (3,), id="a negative price"),
        pytest.param(put(3, volume=-1.0), "negative-volume", (3,), id="a negative volume"),
        pytest.param(put(3, high=90.0, low=91.0), "high-below-low", (3,), id="high and low swapped"),
        pytest.param(put(3, close=90.0), "outside-range", (3,), id="close below the low"),
        pytest.param(put(3, open=120.0), "outside-range", (3,), id="open above the high"),
        pytest.param(scaled([3], 100.0), "scale-jump", (3, 4), id="one bar in cents"),
        pytest.param(
            scaled(range(300, 600), 0.01), "scale-jump", (300,), id="in another currency unit from here on"
        ),
        pytest.param(put(3, high=10_000.0), "scale-jump", (3,), id="a decimal point lost in the high alone"),
        pytest.param(stuck, "stuck-price", tuple(range(100, 110)), id="a feed that repeats itself"),
        pytest.param(swapped_rows, "out-of-order", (11,), id="two rows swapped"),
        pytest.param(
            put(3, timestamp=pd.Timestamp("2024-01-01 01:00Z")), "duplicate-time", (3,), id="a time twice"
        ),
        pytest.param(
            put(3, timestamp=pd.Timestamp("2024-01-01 03:10Z")), "off-grid", (3,), id="ten minutes late"
        ),
        pytest.param(put(3, timestamp=pd.NaT), "unreadable-time", (3,), id="a missing time"),
        pytest.param(
            put(599, timestamp=pd.Timestamp("2124-01-25 23:00Z")), "future-bar", (599,), id="a century late"
        ),
        pytest.param(
            paged, "paged-holes", tuple(range(10, 120, 10)), id="every page of a download cut short"
        ),
    ],
)
def test_a_broken_rule_is_named_with_its_rows(frame, change, rule, rows):
    assert findings(change(frame))[rule] == rows


@pytest.mark.parametrize(
    ("change", "options", "rule"),
    [
        pytest.param(lambda frame: frame[::-1], {}, "newest-first", id="newest first"),
        pytest.param(quote_volume, {}, "volume-scale-jump", id="volume in dollars, then in coins"),
        pytest.param(lambda frame: frame.drop(columns="low"), {}, "missing-columns", id="no low"),
        pytest.param(lambda frame: frame[:0], {}, "empty", id="no bar"),
        pytest.param(
            lambda frame: frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)),
            {},
            "unknown-time-zone",
            id="times without a zone",
        ),
        pytest.param(
            lambda frame: frame.assign(timestamp=frame["timestamp"].astype(str)),
            {},
            "unreadable-time",
            id="text",
        ),
        pytest.param(
            lambda frame: shifted("2h")(frame[::4]),
            {"timeframe": Timeframe.H4},
            "wrong-time-zone",
            id="4h at UTC+2",
        ),
        pytest.param(
            lambda frame: shifted("5h")(frame[::24]),
            {"timeframe": Timeframe.D1},
            "wrong-time-zone",
            id="1d at UTC-5",
        ),
        pytest.param(
            lambda frame: frame, {"calendar": Calendar.WEEKDAYS}, "closed-market", id="trading on Sunday"
        ),
        pytest.param(
            lambda frame: frame,
            {"now": datetime(2024, 1, 25, 23, 59, tzinfo=UTC)},
            "open-bar",
            id="last bar open",
        ),
    ],
)
def test_a_whole_file_that_is_wrong_is_refused_by_name(frame, change, options, rule):
    assert rule in findings(change(frame).reset_index(drop=True), **options)


def test_everything_that_is_wrong_is_reported_at_once(frame):
    broken = put(3, close=np.nan)(put(7, volume=-1.0)(frame))
    assert list(findings(broken[::-1])) == ["nan", "negative-volume", "newest-first"]


def test_the_message_shows_the_first_offending_row_and_what_to_pass(frame):
    with pytest.raises(
        InvalidBars, match=r"open-bar \(1 rows, first \[599\]\).*--drop-open-bar.*2024-01-25 23:00"
    ):
        check(frame, now=datetime(2024, 1, 25, 23, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("now", "bars"),
    [
        pytest.param(datetime(2024, 1, 25, 23, 59, tzinfo=UTC), 599, id="open, left out"),
        pytest.param(datetime(2024, 1, 26, tzinfo=UTC), 600, id="closed this moment, kept"),
    ],
)
def test_only_an_open_bar_is_dropped(frame, now, bars):
    assert len(check(frame, now=now, drop_open_bar=True)) == bars


def test_good_bars_keep_every_value(frame):
    bars = check(frame)
    pd.testing.assert_frame_equal(bars.to_frame(), frame.set_index("timestamp"), check_freq=False)


def test_times_of_another_zone_become_utc(frame):
    elsewhere = frame.assign(timestamp=frame["timestamp"].dt.tz_convert("America/New_York"))
    assert check(elsewhere).content_hash == check(frame).content_hash


def test_dates_of_daily_bars_need_no_zone(frame):
    daily = frame.assign(timestamp=pd.date_range("2020-01-01", periods=600))
    assert check(daily, timeframe=Timeframe.D1).start == pd.Timestamp("2020-01-01", tz="UTC")


def test_a_table_indexed_by_time_is_as_good(frame):
    assert check(frame.set_index("timestamp")).content_hash == check(frame).content_hash


def test_hours_without_a_trade_may_repeat_the_price(frame):
    frame.loc[100:300, list(FIELDS)] = [100.0, 100.0, 100.0, 100.0, 0.0]
    assert len(check(frame)) == 600


def test_gaps_are_no_error_but_counted(frame):
    bars = check(frame.drop(index=[50, 51, 200]))
    assert [gap.missing for gap in bars.gaps] == [2, 1]


def test_sessions_with_a_night_in_between_are_no_lost_pages(frame):
    assert len(check(frame[frame["timestamp"].dt.hour.between(14, 20)])) == 175


def test_equal_prices_with_different_volumes_are_a_thin_market(frame):
    frame.loc[100 : 100 + 5 * STUCK_BARS, list(FIELDS[:4])] = 100.0
    assert len(check(frame)) == 600


@pytest.mark.parametrize(
    ("decimals", "short", "clipped"),
    [
        pytest.param(2, 0.01, True, id="one unit of the last decimal"),
        pytest.param(2, 0.02, False, id="two units"),
        pytest.param(4, 0.0001, True, id="one unit of four decimals"),
        pytest.param(4, 0.001, False, id="ten units of four decimals"),
        pytest.param(0, 1.0, True, id="whole numbers: 1 % of the price"),
        pytest.param(12, 1e-9, True, id="noise of arithmetic"),
    ],
)
def test_a_high_a_rounding_step_below_the_close_is_clipped_and_counted(frame, decimals, short, clipped):
    rounded = frame.assign(**{name: frame[name].round(decimals) for name in FIELDS[:4]})
    rounded["high"] = rounded[["open", "high", "close"]].max(axis=1)
    rounded.loc[3, "high"] = rounded.loc[3, ["open", "close"]].max() - short
    rounded["low"] = rounded[["open", "high", "low", "close"]].min(axis=1)
    if not clipped:
        assert findings(rounded)["outside-range"] == (3,)
        return
    done = examine(rounded, "BTCUSDT", Timeframe.H1, Calendar.ALWAYS, now=NOW, origin="a file")
    assert (done.adjusted, done.allowed) == ({"rounded": 1}, {})
    assert done.bars.high[3] == max(done.bars.open[3], done.bars.close[3])


def test_a_tick_of_a_coin_of_seven_ten_millionths_is_rounding():
    prices = {"open": 7.1e-7, "high": 7.0e-7, "low": 7.0e-7, "close": 7.0e-7, "volume": 1.0}
    time = pd.date_range("2024-01-01", periods=4, freq="h", tz="UTC", unit="ns")
    table = pd.DataFrame({"timestamp": time, **{name: [value] * 4 for name, value in prices.items()}})
    table["volume"] = [1.0, 2.0, 3.0, 4.0]
    assert check(table).high.tolist() == [7.1e-7] * 4


def test_the_first_bar_of_a_listing_may_have_any_wick(frame):
    frame.loc[0, "high"] = 400 * frame.loc[0, "close"]
    assert len(check(frame)) == 600


@pytest.mark.parametrize(
    ("ratio", "name"), [(10, "10:1"), (2, "2:1"), (1.5, "3:2"), (1 / 8, "1:8"), (0.5, "1:2")]
)
def test_a_split_is_named_with_ratio_and_date(frame, ratio, name):
    rows = frame.index >= 300
    frame.loc[rows, list(FIELDS[:4])] /= ratio
    frame.loc[rows, "volume"] *= ratio
    with pytest.raises(InvalidBars, match=f"a split of {name} on 2024-01-13 12:00"):
        check(frame)
    done = examine(
        frame,
        "BTCUSDT",
        Timeframe.H1,
        Calendar.ALWAYS,
        now=NOW,
        origin="a file",
        allow=frozenset({"looks-like-split"}),
    )
    assert done.allowed == {"looks-like-split": 1}


def recovered_crash(frame):
    frame.loc[300:301, list(FIELDS[:4])] /= 2
    return frame


def fall_of_a_third_without_volume(frame):
    frame.loc[300:, list(FIELDS[:4])] /= 1.5
    return frame


def crash_within_a_bar(frame):
    frame.loc[301:, list(FIELDS[:4])] /= 2
    frame.loc[300, ["low", "close"]] /= 2
    return frame


@pytest.mark.parametrize("move", [recovered_crash, fall_of_a_third_without_volume, crash_within_a_bar])
def test_a_large_move_is_no_split(frame, move):
    assert len(check(move(frame))) == 600


def test_a_file_that_continues_in_longer_bars_is_refused_with_the_rows(frame):
    longer = frame.iloc[[*range(300), *range(300, 600, 12)]].reset_index(drop=True)
    with pytest.raises(
        InvalidBars, match=r"20 or more bars in a row are 12 hours apart: pass --timeframe 12h"
    ):
        check(longer)


def test_bars_closer_than_the_timeframe_overlap_whatever_is_overruled(frame):
    assert "overlapping-bars" in findings(frame, timeframe=Timeframe.H4, allow=frozenset({"other-spacing"}))


def test_bars_in_any_order_are_sorted_on_request(frame):
    shuffled = frame.iloc[[*range(10), 11, 10, *range(12, 600)]]
    bars = check(shuffled.reset_index(drop=True), allow=frozenset({"out-of-order"}))
    assert bars.content_hash == check(frame).content_hash


def test_a_range_that_excludes_the_close_is_widened_on_request(frame):
    broken = put(3, close=90.0)(frame)
    bars = check(broken, allow=frozenset({"outside-range"}))
    assert (bars.low[3], bars.close[3]) == (90.0, 90.0)
