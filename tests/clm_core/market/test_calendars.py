"""Calendars: which bars a market requires, and calendars learnt from a series."""

import json
import pickle
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from clm_core.domain.errors import DataError, UnknownCalendar
from clm_core.market.bars import BRIDGED_BARS, Bars
from clm_core.market.calendars import (
    LEARNING_WEEKS,
    chosen,
    describe,
    good_friday,
    learn,
    missing_after,
    periods_per_year,
    recognise,
    required,
    trading_dates,
)
from clm_core.market.timeframes import Calendar, Timeframe, exchange_names

HOUR = 3_600_000_000_000
DAY = 24 * HOUR
YEAR = 365.25 * DAY


def times(start: str, end: str, freq: str) -> np.ndarray:
    return pd.date_range(start, end, freq=freq, inclusive="left", tz="UTC").as_unit("ns").asi8


def new_york_days(start: str, end: str) -> np.ndarray:
    """Sessions of the New York Stock Exchange, as daily bars."""
    from exchange_calendars import get_calendar

    return get_calendar("XNYS", start=start, end=end).sessions.as_unit("ns").asi8


def new_york_hours(start: str, end: str) -> np.ndarray:
    """Hours of the New York Stock Exchange, as a data vendor stores them: the hour of the open included."""
    from exchange_calendars import get_calendar

    schedule = get_calendar("XNYS", start=start, end=end).schedule
    opens, closes = (schedule[name].dt.as_unit("ns").astype("int64").tolist() for name in ("open", "close"))
    return np.concatenate([np.arange(o // HOUR * HOUR, c, HOUR) for o, c in zip(opens, closes, strict=True)])


def gold_hours(start: str, end: str) -> np.ndarray:
    """Hours of a metal: closed at weekends and from 17:00 to 18:00 in New York, and at Christmas."""
    hours = pd.date_range(start, end, freq="h", inclusive="left", tz="UTC")
    local = hours.tz_convert("America/New_York")
    day = local.day_of_week
    hour = local.hour
    weekend = ((day == 4) & (hour >= 17)) | (day == 5) | ((day == 6) & (hour < 18))
    christmas = ((local.month == 12) & (local.day == 25) & (hour < 18)) | (
        (local.month == 12) & (local.day == 24) & (hour > 13)
    )
    return hours[~(weekend | (hour == 17) | christmas)].as_unit("ns").asi8


def bars_of(time: np.ndarray, timeframe: str, calendar: str) -> Bars:
    ones = [np.ones(len(time)) for _ in range(5)]
    return Bars("TEST", Timeframe(timeframe), Calendar(calendar), time, *ones)


class TestName:
    @pytest.mark.parametrize(
        "name", ["24x7", "24x5", "XNYS", "CMES", "XHKG", "us_futures", "weekly:" + "f0" * 21]
    )
    def test_a_calendar_is_its_text_wherever_it_is_stored(self, name):
        calendar = Calendar(name)
        assert calendar == name
        assert f"{calendar}" == calendar.value == name
        assert type(calendar.value) is str
        assert json.dumps({"calendar": calendar}) == json.dumps({"calendar": name})
        assert pickle.loads(pickle.dumps(calendar)) == calendar
        adapter = TypeAdapter(Calendar)
        assert adapter.validate_json(adapter.dump_json(calendar)) == calendar
        assert isinstance(adapter.validate_python(name), Calendar)

    @pytest.mark.parametrize(
        ("alias", "name"),
        [("NYSE", "XNYS"), ("NASDAQ", "XNYS"), ("CME", "CMES"), ("24/7", "24x7"), ("24/5", "24x5")],
    )
    def test_an_alias_becomes_the_name_of_its_calendar(self, alias, name):
        assert Calendar(alias) == name

    def test_every_name_of_the_library_is_a_calendar(self):
        assert all(Calendar(name) == own for name, own in exchange_names().items())
        assert len(exchange_names()) > 90

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("xnys", "XNYS"),
            ("XNSY", "XNYS"),
            ("24/6", "24/7"),
            ("weekly:12", "24x7"),
            ("", "clm data calendars"),
        ],
    )
    def test_an_unknown_name_is_refused_with_similar_names(self, text, hint):
        with pytest.raises(UnknownCalendar, match=f"(?s){hint}.*clm data calendars|{hint}"):
            Calendar(text)

    def test_a_record_with_an_unknown_calendar_is_invalid(self):
        with pytest.raises(ValidationError, match="no calendar is called"):
            TypeAdapter(Calendar).validate_python("nowhere")


class TestRequired:
    @pytest.mark.parametrize(
        ("slot", "timeframe", "calendar", "expected"),
        [
            ("2024-07-06 12:00", "1h", "24x7", True),
            ("2024-07-05 20:00", "1h", "24x5", True),
            ("2024-07-05 21:00", "1h", "24x5", False),
            ("2024-07-03 20:00", "1h", "24x5", True),
            ("2024-07-03 21:00", "1h", "24x5", False),
            ("2024-07-03 22:45", "15m", "24x5", False),
            ("2024-07-03 23:00", "1h", "24x5", True),
            ("2024-07-03 20:00", "4h", "24x5", True),
            ("2024-03-29 10:00", "1h", "24x5", False),
            ("2024-03-28 10:00", "1h", "24x5", True),
            ("2024-12-24 10:00", "1h", "24x5", False),
            ("2024-12-25 23:00", "1h", "24x5", False),
            ("2024-12-26 07:00", "1h", "24x5", False),
            ("2024-12-26 08:00", "1h", "24x5", True),
            ("2022-12-26 12:00", "1h", "24x5", False),
            ("2024-01-01", "1d", "24x5", False),
            ("2024-01-02", "1d", "24x5", True),
            ("2024-01-08 14:00", "1h", "XNYS", True),
            ("2024-01-08 13:00", "1h", "XNYS", False),
            ("2024-07-08 13:00", "1h", "XNYS", True),
            ("2024-07-08 20:00", "1h", "XNYS", False),
            ("2024-07-08 13:00", "15m", "XNYS", False),
            ("2024-07-08 13:30", "15m", "XNYS", True),
            ("2024-07-03 17:00", "1h", "XNYS", False),
            ("2024-07-03", "1d", "XNYS", True),
            ("2024-07-04", "1d", "XNYS", False),
            ("2001-09-12", "1d", "XNYS", False),
            ("1951-01-02", "1d", "XNYS", True),
            ("2024-07-08 03:00", "1h", "XHKG", True),
            ("2024-07-08 04:00", "1h", "XHKG", False),
            ("2024-07-08 05:00", "1h", "XHKG", True),
            ("2024-07-07 22:00", "1h", "CMES", True),
            ("2024-07-06 12:00", "1h", "CMES", False),
        ],
    )
    def test_slots_in_which_a_market_trades(self, slot, timeframe, calendar, expected):
        moment = np.array([pd.Timestamp(slot, tz="UTC").as_unit("ns").value])
        assert required(moment, Timeframe(timeframe), Calendar(calendar)).tolist() == [expected]

    def test_good_fridays_are_those_of_the_church(self):
        """Dates of the Gregorian Easter Sunday less two days (US Naval Observatory)."""
        assert [good_friday(year) for year in (2019, 2020, 2021, 2024, 2038)] == [
            (4, 19),
            (4, 10),
            (4, 2),
            (3, 29),
            (4, 23),
        ]

    def test_years_that_an_exchange_does_not_know_are_not_required(self):
        """XKRX, the exchange of Korea, begins in 1956."""
        slots = times("1950-01-01", "1950-02-01", "D")
        assert not required(slots, Timeframe.D1, Calendar("XKRX")).any()
        assert required(times("2020-01-02", "2020-01-03", "D"), Timeframe.D1, Calendar("XKRX")).all()

    def test_sessions_before_the_twenty_years_of_the_library_are_no_gaps(self):
        bars = bars_of(new_york_days("1990-01-01", "2001-12-31"), "1d", "XNYS")
        assert (bars.gaps, int(bars.segments[-1])) == ((), 0)
        assert bars.closures > 11 * 52


class TestMissing:
    @given(
        first=st.integers(400_000, 500_000),
        hours=st.integers(1, 900),
        timeframe=st.sampled_from([Timeframe.M30, Timeframe.H1, Timeframe.H4, Timeframe.D1]),
        calendar=st.sampled_from(["24x5", "XNYS", "XHKG", "CMES"]),
    )
    def test_missing_bars_are_the_required_slots_in_between(self, first, hours, timeframe, calendar):
        step = timeframe.nanoseconds
        after = first * HOUR // step * step
        before = after + max(1, hours * HOUR // step) * step
        slots = np.arange(after + step, before, step)
        counted = missing_after(np.array([after, before]), timeframe, Calendar(calendar), gap_rules=2)
        assert counted.tolist() == [required(slots, timeframe, Calendar(calendar)).sum()]

    def test_a_series_counts_the_same_gaps_whole_and_in_slices(self):
        time = new_york_hours("2019-01-02", "2020-12-31")
        keep = np.ones(len(time), dtype=np.bool_)
        keep[[40, 41, 42, 900, *range(1500, 1530)]] = False
        for calendar in ("XNYS", str(learn(time, Timeframe.H1))):
            bars = bars_of(time[keep], "1h", calendar)
            whole = [(gap.after, gap.missing) for gap in bars.gaps]
            middle = bars[30:2000]
            assert [(gap.after, gap.missing) for gap in middle.gaps] == whole
            assert sum(missing for _, missing in whole) == (34 if calendar == "XNYS" else 25)
            assert np.array_equal(bars.bridged[31:2000], middle.bridged[1:])

    @pytest.mark.parametrize("missing", range(1, BRIDGED_BARS + 3))
    def test_outages_up_to_the_bound_are_carried_through_and_marked(self, missing):
        time = np.concatenate([np.arange(10), np.arange(10 + missing, 20 + missing)]) * HOUR
        bars = bars_of(time, "1h", "24x7")
        short = missing <= BRIDGED_BARS
        assert [gap.missing for gap in bars.gaps] == [missing]
        assert np.flatnonzero(bars.bridged).tolist() == ([10] if short else [])
        assert bars.segments[-1] == (0 if short else 1)


class TestLearnt:
    def test_hours_of_shares_are_learnt_without_those_that_daylight_saving_moves(self):
        time = new_york_hours("2010-01-01", "2014-12-31")
        calendar = learn(time, Timeframe.H1)
        assert describe(calendar) == "closes: 20:00-14:00 UTC, week-ends, holidays of a day"
        bars = bars_of(time, "1h", calendar)
        # Hurricane Sandy closed the exchange for two days
        assert [(f"{gap.after:%Y-%m-%d}", gap.missing) for gap in bars.gaps] == [("2012-10-26", 12)]

    def test_bars_after_the_first_year_do_not_change_what_is_learnt(self):
        time = new_york_hours("2010-01-01", "2012-12-31")
        limit = time[0] + LEARNING_WEEKS * 7 * DAY
        always_open = np.arange(limit, limit + 1000 * HOUR, HOUR)
        changed = np.concatenate([time[time < limit], always_open])
        for find in (learn, recognise):
            assert (
                find(changed, Timeframe.H1)
                == find(time, Timeframe.H1)
                == find(time[time < limit], Timeframe.H1)
            )

    def test_a_holiday_with_its_early_close_is_a_closure_and_a_hole_in_a_session_is_an_outage(self):
        time = new_york_hours("2010-01-01", "2011-12-31")
        calendar = learn(time, Timeframe.H1)
        day = pd.DatetimeIndex(time).floor("D")
        hole = (day == "2011-05-04") & pd.DatetimeIndex(time).hour.isin([15, 16])
        bars = bars_of(time[~hole], "1h", calendar)
        assert [(f"{gap.after:%Y-%m-%d %H}", gap.missing) for gap in bars.gaps] == [("2011-05-04 14", 2)]

    def test_bars_of_minutes_need_whole_hours(self):
        time = np.concatenate(
            [
                np.arange(o, o + 6 * HOUR + HOUR // 2, HOUR // 4)
                for o in times("2020-01-06", "2020-03-30", "D") + 14 * HOUR + HOUR // 2
            ]
        )
        calendar = learn(time, Timeframe.M15)
        assert describe(calendar) == "closes: 21:00-15:00 UTC, holidays of a day"
        assert bars_of(time, "15m", calendar).gaps == ()

    @pytest.mark.parametrize(
        ("time", "timeframe", "calendar"),
        [
            (lambda: times("2020-01-01", "2021-06-01", "h"), "1h", "24x7"),
            (lambda: times("2020-01-01", "2021-06-01", "D"), "1d", "24x7"),
            (lambda: times("2020-01-01", "2020-01-03", "h"), "1h", "24x7"),
            (lambda: gold_hours("2015-01-01", "2017-01-01"), "1h", "24x5"),
            (lambda: gold_hours("2015-03-03", "2015-03-13"), "1h", "24x5"),
            (lambda: new_york_days("2010-01-01", "2012-12-31"), "1d", "weekly"),
            (lambda: new_york_hours("2010-01-01", "2012-12-31"), "1h", "weekly"),
            (lambda: new_york_hours("2010-01-04", "2010-01-08"), "1h", "24x7"),
            (lambda: times("2020-01-01", "2021-06-01", "h")[:0], "1h", "24x7"),
        ],
        ids=[
            "crypto",
            "crypto daily",
            "two days",
            "gold",
            "ten days of gold",
            "shares daily",
            "shares",
            "a week",
            "no bar",
        ],
    )
    def test_the_calendar_of_a_file_is_recognised(self, time, timeframe, calendar):
        assert recognise(time(), Timeframe(timeframe)).split(":")[0] == calendar

    def test_outages_of_crypto_are_not_taken_for_closing_times(self):
        rng = np.random.default_rng(3)
        time = times("2020-01-01", "2021-06-01", "h")
        assert recognise(time[rng.random(len(time)) > 0.1], Timeframe.H1) == "24x7"

    def test_too_few_bars_to_learn_from_are_refused_with_a_remedy(self):
        with pytest.raises(DataError, match=r"28 days are needed.*--calendar 24x7"):
            learn(times("2020-01-01", "2020-01-20", "h"), Timeframe.H1)
        sparse = times("2020-01-01", "2021-01-01", "h")[::97]
        with pytest.raises(DataError, match="no hour of the week"):
            learn(sparse, Timeframe.H1)

    @pytest.mark.parametrize(
        ("choice", "stored", "calendar"),
        [
            ("auto", None, "24x5"),
            ("auto", "XNYS", "XNYS"),
            ("learn", None, "weekly"),
            ("learn", "weekly:" + "f" * 42, "weekly:" + "f" * 42),
            ("learn", "24x7", "weekly"),
            ("NYSE", "24x7", "XNYS"),
        ],
    )
    def test_a_choice_of_calendar_keeps_that_of_the_stored_series(self, choice, stored, calendar):
        time = gold_hours("2015-01-01", "2017-01-01")
        chosen_calendar = chosen(choice, time, Timeframe.H1, None if stored is None else Calendar(stored))
        assert chosen_calendar.startswith(calendar)


class TestPeriodsPerYear:
    @pytest.mark.parametrize(
        ("time", "timeframe", "calendar", "low", "high"),
        [
            (lambda: new_york_days("1998-01-01", "2020-12-31"), "1d", "XNYS", 251.0, 252.0),
            (lambda: new_york_hours("1998-01-01", "2020-12-31"), "1h", "XNYS", 1750.0, 1762.0),
            (lambda: gold_hours("2012-01-01", "2020-01-01"), "1h", "24x5", 5900.0, 6005.0),
            (lambda: times("2020-01-01", "2021-01-01", "h"), "1h", "24x7", 8760.0, 8760.0),
            (lambda: times("2020-01-01", "2020-01-02", "D"), "1d", "24x7", 365.0, 365.0),
            (lambda: np.empty(0, dtype=np.int64), "1d", "XNYS", 250.0, 254.0),
        ],
    )
    def test_bars_a_year_are_those_that_exist(self, time, timeframe, calendar, low, high):
        assert low <= periods_per_year(time(), Timeframe(timeframe), Calendar(calendar)) <= high

    @given(start=st.integers(0, 3000), length=st.integers(5, 1200), daily=st.booleans())
    def test_a_slice_of_a_market_has_about_the_bars_a_year_of_the_whole(self, start, length, daily):
        time = days() if daily else hours()
        timeframe = Timeframe.D1 if daily else Timeframe.H1
        whole = periods_per_year(time, timeframe, Calendar("XNYS"))
        part = periods_per_year(time[start : start + length], timeframe, Calendar("XNYS"))
        assert abs(part / whole - 1) < 0.08

    @given(start=st.integers(0, 3000), length=st.integers(700, 3000))
    def test_a_covered_span_counts_its_own_bars(self, start, length):
        time = hours()[start : start + length]
        years = (time[-1] - time[0] + HOUR) / YEAR
        assert periods_per_year(time, Timeframe.H1, Calendar("24x5")) == pytest.approx(len(time) / years)


@cache
def days() -> np.ndarray:
    return new_york_days("2005-01-01", "2020-12-31")


@cache
def hours() -> np.ndarray:
    return new_york_hours("2016-01-01", "2020-12-31")


@pytest.mark.parametrize(
    ("calendar", "date", "trading"),
    [
        pytest.param("24x7", "2021-03-06", "2021-03-06", id="crypto trades on Saturdays"),
        pytest.param("24x5", "2021-03-05", "2021-03-05", id="a Friday"),
        pytest.param("24x5", "2021-03-07", "2021-03-08", id="Sunday evening belongs to Monday"),
        pytest.param("24x5", "2020-12-25", "2020-12-28", id="Christmas"),
        pytest.param("CMES", "2021-03-07", "2021-03-08", id="Sunday evening of futures"),
        pytest.param("XSAU", "2021-03-07", "2021-03-07", id="Riyadh trades on Sundays"),
        pytest.param("XNYS", "2021-04-02", "2021-04-05", id="Good Friday in New York"),
        pytest.param(
            "weekly:0003f00003f00003f00003f00003f0000000000000", "2021-03-05", "2021-03-05", id="learnt"
        ),
        pytest.param(
            "weekly:0003f00003f00003f00003f00003f0000000000000", "2021-03-07", "2021-03-08", id="closed"
        ),
    ],
)
def test_bars_on_a_date_without_a_session_belong_to_the_next_trading_day(calendar, date, trading):
    dates = np.array([date], dtype="datetime64[D]")
    expected = np.array([trading], dtype="datetime64[D]").astype(np.int64)
    assert trading_dates(dates.astype(np.int64), Calendar(calendar)).tolist() == expected.tolist()
