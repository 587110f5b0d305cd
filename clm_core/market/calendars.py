"""Closing times of markets: the bars that a calendar requires, and calendars learnt from a series.

A slot is a place on the grid of bar-open times. A calendar requires the slots in which its market trades; a
missing bar in a required slot is an outage, any other missing bar is a closure:

- `24x7` requires every slot.
- `24x5` (foreign exchange, metals) requires none in the weekend window (Friday 21:00 to Sunday 22:00 UTC), in
  the daily break (slots that open from 21:00 up to, not including, 23:00 UTC), and on the holidays below.
- A calendar of exchange_calendars requires the slots that overlap a session: the slot of 14:00 UTC covers an
  opening at 14:30. Bars of a day or longer stand for the sessions of their dates. Slots within a lunch break,
  and slots beyond the years that the calendar knows, are not required.
- A learnt calendar (`weekly:<mask>`) requires the hours of the week in its mask, less holidays: see
  `_without_holidays`.

A bar in a slot that is not required is kept and is no error.
"""

import threading
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.domain.errors import DataError
from clm_core.market.timeframes import (
    HOURS_A_WEEK,
    LEARNT,
    Calendar,
    Timeframe,
    closing_slots,
    in_weekend,
    weekend_slots,
)

Times = NDArray[np.int64]
Mask = NDArray[np.bool_]

AUTO = "auto"
"""Choice of a calendar: that of the stored series, or the recognised one."""
LEARN = "learn"
"""Choice of a calendar: the closing times are learnt from the bars."""
LEARNING_WEEKS = 52
"""Weeks at the start of a series from which closing times are learnt; later bars change nothing."""
MIN_LEARNING_WEEKS = 4
"""Weeks that closing times can be learnt from at least."""
REQUIRED_SHARE = 0.75
"""Share of the weeks in which a slot has a bar to be required. Where an opening hour moves with daylight
saving time, each position lasts five to seven months: both positions are optional."""
CLOSED_SHARE = 0.1
"""Share of the weeks in which a slot has a bar at most to count as a regular closure."""
FITTING_SHARE = 0.01
"""Share of the slots required by `24x5` that may be missing from a series recognised as `24x5`. Gold lacks
0.5 % by the early closes of American holidays; shares lack 3 % by their holidays."""
HOLIDAY_DAYS = 1.5
"""Trading days that a gap of a learnt calendar lacks at most to be a holiday: a day, and half of its eve."""
JOINED_DAYS = 4
"""Days within which a date without a session joins the next trading day."""
COUNTED_DAYS = 90
"""Days that a series covers at least for its bars a year to be counted from its own bars."""

_HOUR = 3600 * 1_000_000_000
_DAY = 24 * _HOUR
_WEEK = 7 * _DAY
_YEAR_DAYS = 365.25
_MONDAY = 3 * _DAY
"""Nanoseconds from the Monday before to 1970-01-01, a Thursday."""

HOLIDAYS = frozenset({(12, 24), (12, 25), (12, 31), (1, 1)})
"""Holidays of `24x5` by month and day, the eves with their early closes as whole days. Good Friday belongs to
them too. Source: the trading hours of gold and currency futures (CME Globex holiday calendar: closed on New
Year's Day, Good Friday and Christmas Day, or on the Monday after where they fall on a Sunday, early closes on
the eves); other American holidays only shorten the day, by about five hours."""
MORNINGS_AFTER = frozenset({(12, 26), (1, 2)})
"""Days of `24x5` that may open late, at 08:00 UTC: the mornings after Christmas Day and New Year's Day."""
_LATE_OPENING = 8


def missing_after(time: Times, timeframe: Timeframe, calendar: Calendar, gap_rules: int) -> Times:
    """Number of required slots without a bar between each bar and the next, shape (n_bars - 1,).

    Args:
        time: bar-open times in order, nanoseconds since 1970-01-01 UTC, shape (n_bars,).
        gap_rules: 1 for the rules of release 0.1.0, in which `24x5` closes at weekends only.
    """
    after = time[:-1]
    before = time[1:]
    absent = (before - after) // timeframe.nanoseconds - 1
    if calendar == Calendar.ALWAYS:
        return np.asarray(absent)
    if calendar == Calendar.WEEKDAYS and gap_rules == 1:
        return np.asarray(absent - closing_slots(after, before, timeframe, calendar))
    slots, gap = _slots_between(time, absent, timeframe.nanoseconds)
    missing = np.bincount(gap[required(slots, timeframe, calendar)], minlength=len(absent))
    if calendar.is_learnt:
        missing = _without_holidays(missing, absent, timeframe, calendar)
    return missing.astype(np.int64)


def required(slots: Times, timeframe: Timeframe, calendar: Calendar) -> Mask:
    """True for slots in which the market trades by the calendar, shape (n_slots,).

    Args:
        slots: bar-open times on the grid, nanoseconds since 1970-01-01 UTC, shape (n_slots,).

    Raises:
        DataError: exchange_calendars cannot build the calendar for the years of the slots.
    """
    longer_than_a_day = timeframe.nanoseconds > _DAY and not calendar.is_exchange
    if calendar == Calendar.ALWAYS or longer_than_a_day or not len(slots):
        return np.ones(len(slots), dtype=np.bool_)
    if calendar == Calendar.WEEKDAYS:
        return np.asarray(~(weekend_slots(slots) | _in_daily_break(slots) | _on_holiday(slots, timeframe)))
    if calendar.is_learnt:
        return np.asarray(_hours(calendar)[_hour_of_week(slots)])
    return _in_session(slots, timeframe, calendar)


def periods_per_year(time: Times, timeframe: Timeframe, calendar: Calendar) -> float:
    """Bars in a year: 8760 for hourly crypto; for a market that closes, counted from the bars.

    A series of at least `COUNTED_DAYS` has n_bars / years covered, outages included as bars that do not
    exist. A shorter series has the slots that its calendar requires in the year up to the last bar; from a
    week on, in proportion to the bars per required slot, since opening hours that move are not required.
    """
    nominal = 365.0 * _DAY / timeframe.nanoseconds
    if calendar == Calendar.ALWAYS:
        return nominal
    last = int(time[-1]) if len(time) else pd.Timestamp("2020-12-31").value
    span = last - int(time[0]) + timeframe.nanoseconds if len(time) else 0
    if span >= COUNTED_DAYS * _DAY:
        return len(time) / (span / _DAY / _YEAR_DAYS)
    expected = _required_in_year(calendar, timeframe, last // _DAY)
    if span >= _WEEK:
        slots = np.arange(int(time[0]), last + 1, timeframe.nanoseconds)
        demanded = np.count_nonzero(required(slots, timeframe, calendar))
        expected = expected * len(time) / demanded if demanded else nominal
    return expected or nominal


@lru_cache(maxsize=256)
def _required_in_year(calendar: Calendar, timeframe: Timeframe, day: int) -> float:
    """Number of required slots in the year that ends with a day since 1970-01-01."""
    step = timeframe.nanoseconds
    end = (day + 1) * _DAY // step * step
    slots = np.arange(end - 365 * _DAY // step * step, end, step)
    return float(np.count_nonzero(required(slots, timeframe, calendar)) * _YEAR_DAYS / 365)


def trading_dates(dates: Times, calendar: Calendar) -> Times:
    """Trading day of each date with bars: the date, or the next date with a session of the calendar.

    Bars on dates without a session, as on the Sunday evening of currencies, belong to the next trading day.
    Without a session in the next `JOINED_DAYS` days, the date is the trading day.

    Args:
        dates: days since 1970-01-01 UTC, ascending, shape (n,).

    Returns:
        Ascending, shape (n,).
    """
    if calendar == Calendar.ALWAYS or not len(dates):
        return dates
    days, row = np.unique(dates, return_inverse=True)
    ahead = days[:, None] + np.arange(JOINED_DAYS + 1)
    trading = _is_trading_date(ahead.ravel(), calendar).reshape(ahead.shape)
    return np.asarray((days + np.argmax(trading, axis=1))[row])


def _is_trading_date(dates: Times, calendar: Calendar) -> Mask:
    if calendar.is_learnt:
        hours = _hours(calendar).reshape(7, 24).sum(axis=1)
        weekdays = (dates + _MONDAY // _DAY) % 7
        return np.asarray(hours[weekdays] * 2 > hours.max())
    return required(dates * _DAY, Timeframe.D1, calendar)


def learn(time: Times, timeframe: Timeframe) -> Calendar:
    """Calendar of the hours of the week that have a bar in at least `REQUIRED_SHARE` of the weeks.

    Only the first `LEARNING_WEEKS` are used: the calendar is causal for every later bar, and bars added later
    do not change it. An hour of bars shorter than an hour is required if each of its slots is.

    Raises:
        DataError: the series is shorter than `MIN_LEARNING_WEEKS`, or no slot is regular.
    """
    span = int(time[-1] - time[0]) if len(time) else 0
    if span < MIN_LEARNING_WEEKS * _WEEK - timeframe.nanoseconds:
        raise DataError(
            f"closing times cannot be learnt from {span / _DAY:.0f} days: {MIN_LEARNING_WEEKS * 7} days are "
            "needed; pass the calendar (--calendar 24x7, 24x5 or the name of an exchange: "
            "`clm data calendars`)"
        )
    share = _share_by_slot(time, timeframe)
    hours = np.zeros(HOURS_A_WEEK, dtype=np.bool_)
    if timeframe.nanoseconds < _HOUR:
        hours[:] = (share.reshape(HOURS_A_WEEK, -1) >= REQUIRED_SHARE).all(axis=1)
    else:
        hours[:: timeframe.nanoseconds // _HOUR] = share >= REQUIRED_SHARE
    if not hours.any():
        raise DataError(
            "no hour of the week has its bars in three weeks out of four: pass the calendar "
            "(--calendar 24x7, 24x5 or the name of an exchange: `clm data calendars`)"
        )
    return _calendar_of(hours)


def recognise(time: Times, timeframe: Timeframe) -> Calendar:
    """Calendar of a series: `24x7` without regular closures, `24x5` where that fits, else learnt.

    A series too short to learn from is `24x5` if its only gaps are those of `24x5`, else `24x7`. As with
    `learn`, the first `LEARNING_WEEKS` decide.
    """
    early = time[: int(np.searchsorted(time, time[0] + LEARNING_WEEKS * _WEEK))] if len(time) else time
    if len(early) < 2 or timeframe.nanoseconds > _DAY:
        return Calendar.ALWAYS
    missing = missing_after(early, timeframe, Calendar.WEEKDAYS, gap_rules=2)
    closes_at_weekends = not in_weekend(early, timeframe).any() and bool(
        np.any(np.diff(early) > timeframe.nanoseconds)
    )
    if early[-1] - early[0] < MIN_LEARNING_WEEKS * _WEEK - timeframe.nanoseconds:
        spans_weekend = np.any((np.diff(early) > _DAY) & (missing == 0))
        fits = closes_at_weekends and bool(spans_weekend) and not missing.any()
        return Calendar.WEEKDAYS if fits else Calendar.ALWAYS
    share = _share_by_slot(early, timeframe)
    if not np.any(share <= CLOSED_SHARE):
        return Calendar.ALWAYS
    if closes_at_weekends and missing.sum() <= FITTING_SHARE * (len(early) + missing.sum()):
        return Calendar.WEEKDAYS
    return learn(early, timeframe) if np.any(share >= REQUIRED_SHARE) else Calendar.ALWAYS


def chosen(choice: str, time: Times, timeframe: Timeframe, stored: Calendar | None) -> Calendar:
    """Calendar of bars that join a series.

    Args:
        choice: the name of a calendar; `learn` to learn the closing times; `auto` to recognise the calendar.
        stored: calendar of the series if it exists; kept by `auto`, and by `learn` if learnt itself.

    Raises:
        UnknownCalendar: no calendar has the name.
        DataError: the closing times cannot be learnt.
    """
    if choice == AUTO:
        return stored or recognise(time, timeframe)
    if choice == LEARN:
        return stored if stored is not None and stored.is_learnt else learn(time, timeframe)
    return Calendar(choice)


def describe(calendar: Calendar) -> str:
    """Closing times in words, in UTC: "closes: 20:00-14:00 UTC, week-ends"."""
    if calendar == Calendar.ALWAYS:
        return "never closes"
    if calendar == Calendar.WEEKDAYS:
        return (
            "closes: week-ends (Friday 21:00 to Sunday 22:00 UTC), 21:00-23:00 UTC, New Year's Day, "
            "Good Friday, Christmas Day, and around them"
        )
    if not calendar.is_learnt:
        return f"closes: outside the sessions of {calendar} (exchange_calendars)"
    by_day = _hours(calendar).reshape(7, 24)
    open_days = np.flatnonzero(by_day.any(axis=1))
    closed_days = [day for day in range(7) if day not in open_days]
    usual = by_day[open_days].sum(axis=0) * 2 > len(open_days)
    parts = [f"{span} UTC" for span in _closed_spans(usual)] if by_day.sum() > 7 else []
    if closed_days[-2:] == [5, 6]:
        parts.append("week-ends")
        closed_days = closed_days[:-2]
    parts += [
        ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")[day]
        for day in closed_days
    ]
    return "closes: " + ", ".join([*parts, "holidays of a day"])


def _slots_between(time: Times, absent: Times, step: int) -> tuple[Times, Times]:
    """Slots without a bar between neighbours, and the number of the gap (row of the bar before) of each."""
    gaps = np.flatnonzero(absent > 0)
    lengths = absent[gaps]
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(time[gaps] + step, lengths) + within * step, np.repeat(gaps, lengths)


def _without_holidays(missing: Times, absent: Times, timeframe: Timeframe, calendar: Calendar) -> Times:
    """Missing slots of a learnt calendar, none for gaps taken for a holiday.

    A gap is a holiday, with the early close before it or without, if at most `HOLIDAY_DAYS` trading days of
    required slots are missing and the gap reaches closing time, or exactly one trading day is missing. A hole
    within the trading hours is an outage, however short.
    """
    hours = _hours(calendar)
    if timeframe.nanoseconds < _HOUR:
        day = int(hours.reshape(7, 24).sum(axis=1).max()) * (_HOUR // timeframe.nanoseconds)
    else:
        day = int(hours.reshape(7, 24)[:, :: timeframe.nanoseconds // _HOUR].sum(axis=1).max())
    holiday = (missing <= HOLIDAY_DAYS * day) & ((missing < absent) | (missing == day))
    return np.where(holiday, 0, missing)


def _share_by_slot(time: Times, timeframe: Timeframe) -> NDArray[np.float64]:
    """Share of the weeks with a bar, for each slot of the week from Monday 00:00 UTC on; 0 for slots that
    the series does not cover."""
    step = timeframe.nanoseconds
    n_slots = _WEEK // step
    end = min(int(time[-1]) + step, int(time[0]) + LEARNING_WEEKS * _WEEK)
    grid = np.arange(int(time[0]), end, step)
    offered = np.bincount((grid + _MONDAY) // step % n_slots, minlength=n_slots)
    present = np.bincount((time[time < end] + _MONDAY) // step % n_slots, minlength=n_slots)
    return np.asarray(present / np.maximum(offered, 1))


def _calendar_of(hours: Mask) -> Calendar:
    return Calendar(LEARNT + np.packbits(hours).tobytes().hex())


def _hours(calendar: Calendar) -> Mask:
    """Required hours of the week of a learnt calendar, from Monday 00:00 UTC on, shape (168,)."""
    packed = np.frombuffer(bytes.fromhex(calendar.removeprefix(LEARNT)), dtype=np.uint8)
    return np.unpackbits(packed).astype(np.bool_)


def _hour_of_week(slots: Times) -> Times:
    return np.asarray((slots + _MONDAY) % _WEEK // _HOUR)


def _closed_spans(open_hours: Mask) -> list[str]:
    """Runs of closed hours of a day, "20:00-14:00", runs over midnight as one."""
    if open_hours.all() or not open_hours.any():
        return []
    ends = [hour for hour in range(24) if open_hours[hour] and not open_hours[hour - 1]]
    starts = [hour for hour in range(24) if not open_hours[hour] and open_hours[hour - 1]]
    return [f"{start:02}:00-{min(ends, key=lambda end: (end - start) % 24):02}:00" for start in starts]


def _in_daily_break(slots: Times) -> Mask:
    hour = slots % _DAY // _HOUR
    return np.asarray((hour == 21) | (hour == 22))


def _on_holiday(slots: Times, timeframe: Timeframe) -> Mask:
    days, day_of_slot = np.unique(slots // _DAY, return_inverse=True)
    dates = pd.DatetimeIndex(pd.to_datetime(days, unit="D"))
    month_day = list(zip(dates.month.tolist(), dates.day.tolist(), strict=True))
    good_fridays = {year: good_friday(year) for year in set(dates.year.tolist())}
    whole = np.array(
        [
            pair in HOLIDAYS or pair == good_fridays[year] or (pair in MORNINGS_AFTER and weekday == 0)
            for pair, year, weekday in zip(
                month_day, dates.year.tolist(), dates.day_of_week.tolist(), strict=True
            )
        ],
        dtype=np.bool_,
    )
    morning = np.array([pair in MORNINGS_AFTER for pair in month_day], dtype=np.bool_)
    early = slots % _DAY + timeframe.nanoseconds <= _LATE_OPENING * _HOUR
    return np.asarray(whole[day_of_slot] | (morning[day_of_slot] & early))


def good_friday(year: int) -> tuple[int, int]:
    """Month and day of Good Friday: two days before the Gregorian Easter Sunday (Meeus 1991, chapter 8)."""
    a = year % 19
    b, c = divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    friday = pd.Timestamp(year, month, day + 1) - pd.Timedelta(days=2)
    return friday.month, friday.day


@dataclass(frozen=True, eq=False)
class _Sessions:
    """Sessions of an exchange, nanoseconds since 1970-01-01 UTC, each of shape (n_sessions,)."""

    first_year: int
    last_year: int
    date: Times
    open: Times
    close: Times
    break_start: Times
    """Start of the lunch break, or the close without a break."""
    break_end: Times


_sessions: dict[str, _Sessions] = {}
_building = threading.Lock()


def _in_session(slots: Times, timeframe: Timeframe, calendar: Calendar) -> Mask:
    years = pd.DatetimeIndex(pd.to_datetime([slots.min(), slots.max()], unit="ns")).year
    sessions = _sessions_of(calendar, int(years[0]) - 1, int(years[1]) + 1)
    ends = slots + timeframe.nanoseconds
    if timeframe.nanoseconds >= _DAY:
        return np.asarray(np.searchsorted(sessions.date, slots) < np.searchsorted(sessions.date, ends))
    # the first session that closes after the slot has opened
    following = np.searchsorted(sessions.close, slots, side="right")
    known = following < len(sessions.close)
    row = np.where(known, following, 0)
    open_then = known & (sessions.open[row] < ends)
    at_lunch = (sessions.break_start[row] <= slots) & (ends <= sessions.break_end[row])
    return np.asarray(open_then & ~at_lunch)


def _sessions_of(calendar: Calendar, first_year: int, last_year: int) -> _Sessions:
    """Sessions for at least the years, built once and again only for more years."""
    with _building:
        known = _sessions.get(calendar)
        if known is None or first_year < known.first_year or last_year > known.last_year:
            if known is not None:
                first_year = min(first_year, known.first_year)
                last_year = max(last_year, known.last_year)
            known = _build(calendar, first_year, last_year)
            _sessions[calendar] = known
        return known


def _build(calendar: Calendar, first_year: int, last_year: int) -> _Sessions:
    start = pd.Timestamp(first_year, 1, 1)
    end = pd.Timestamp(last_year, 12, 31)
    try:
        with warnings.catch_warnings():
            # the library uses what the next pandas will no longer have; its calendars are tested here
            warnings.simplefilter("ignore")
            schedule = _schedule(calendar, start, end)
    # the library raises ValueError and its own errors, and some of its calendars fail for some years
    except Exception as error:
        raise DataError(
            f"exchange_calendars cannot build {calendar} for {first_year} to {last_year} "
            f"({type(error).__name__}: {str(error)[:200]}): learn the closing times from the bars "
            "(--calendar learn)"
        ) from error

    def nanoseconds(values: Any) -> Times:
        return np.asarray(pd.DatetimeIndex(values).as_unit("ns").asi8)

    close = nanoseconds(schedule["close"])
    break_start = nanoseconds(schedule["break_start"])
    has_break = break_start != pd.NaT.value
    return _Sessions(
        first_year,
        last_year,
        nanoseconds(schedule.index),
        nanoseconds(schedule["open"]),
        close,
        np.where(has_break, break_start, close),
        np.where(has_break, nanoseconds(schedule["break_end"]), close),
    )


def _schedule(calendar: Calendar, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    from exchange_calendars import get_calendar

    schedule: pd.DataFrame
    try:
        schedule = get_calendar(str(calendar), start=start, end=end).schedule
    except ValueError:
        # some calendars know some years only, and refuse others
        recent = get_calendar(str(calendar))
        first = max(start, type(recent).bound_min() or start)
        last = min(end, type(recent).bound_max() or end)
        if first >= last:
            schedule = recent.schedule[:0]
        else:
            schedule = get_calendar(str(calendar), start=first, end=last).schedule
    return schedule
