"""Times of data files: epochs, ISO 8601 and other usual spellings, local times with summer time."""

import re
from dataclasses import dataclass
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from clm_core.domain.errors import DataError
from clm_core.market.tables import UnclearError

EPOCH_UNITS: tuple[Literal["s", "ms", "us", "ns"], ...] = ("s", "ms", "us", "ns")
# Seconds of 1973..5138, the same span in milliseconds, ...: no number is a plausible time in two units.
EPOCH_BOUNDS = np.array([1e8, 1e11, 1e14, 1e17])

FORMATS = (
    *("%Y.%m.%d %H:%M:%S", "%Y.%m.%d %H:%M", "%Y.%m.%d", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d"),
    *("%Y%m%d %H%M%S", "%Y%m%d %H:%M:%S", "%Y%m%d %H:%M", "%Y%m%d %H%M", "%Y%m%d"),
    *("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y-%m-%d %I-%p", "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %I:%M %p"),
)
"""Unambiguous formats tried after ISO 8601: all begin with the year."""

_OFFSET = re.compile(r"\s*(Z|[+-]\d{2}:?\d{2})$")
_MINUTE = 60_000_000_000

Stamps = "pd.Series[pd.Timestamp]"


@dataclass(frozen=True)
class Moments:
    """Times of a column."""

    times: "pd.Series[pd.Timestamp]"
    """In UTC, or without a zone where the file and the caller name none."""
    wall: "pd.Series[pd.Timestamp] | None"
    """The same times as the clock at the place shows them, without a zone; None if unknown."""
    ambiguous: tuple[int, ...] = ()
    """Rows whose local time exists twice, read as the first, because the neighbours do not tell."""


def parse(column: "pd.Series[Any]", time_format: str | None) -> Moments:
    """Times of a column in file order; unreadable ones are NaT.

    Raises:
        UnclearError: no cell is a time, or units or zones are mixed.
    """
    if time_format is not None:
        moments = _formatted(column.astype("string"), time_format)
    elif pd.api.types.is_datetime64_any_dtype(column):
        moments = _aware(column, column.dt.tz_localize(None) if column.dt.tz is not None else column)
    elif pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        moments = _digits(column.astype("string").str.replace(r"\.0+$", "", regex=True))
    else:
        moments = _text(column.astype("string").str.strip())
    if moments.times.isna().all() and len(column):
        raise UnclearError("unreadable-time", f"{column.iloc[0]!r} is no time known here; {advice(column)}")
    return moments


def _aware(times: "pd.Series[pd.Timestamp]", wall: "pd.Series[pd.Timestamp]") -> Moments:
    if times.dt.tz is None:
        return Moments(times, times)
    return Moments(times.dt.tz_convert("UTC"), wall)


def _formatted(text: "pd.Series[str]", time_format: str) -> Moments:
    zoned = bool(re.search(r"%[zZ]", time_format))
    try:
        times = pd.to_datetime(text, format=time_format, errors="coerce", utc=zoned)
    except (ValueError, TypeError, KeyError, IndexError, re.error) as error:
        raise UnclearError("unreadable-time", f"--time-format {time_format!r}: {error}") from error
    if not pd.api.types.is_datetime64_any_dtype(times):
        raise UnclearError("unreadable-time", f"--time-format {time_format!r} gives no times")
    return Moments(times, _wall(times, text) if zoned else times)


def _wall(times: "pd.Series[pd.Timestamp]", text: "pd.Series[str]") -> "pd.Series[pd.Timestamp] | None":
    """Clock times from the offsets at the end of the text; None if a cell has no offset."""
    offsets = text.str.extract(_OFFSET.pattern, expand=False)
    if not bool((offsets.isna() <= text.isna()).all()):
        return None
    sizes = {
        offset: pd.Timedelta(0 if offset == "Z" else _minutes(offset), "min")
        for offset in offsets.dropna().unique()
    }
    return times.dt.tz_localize(None) + pd.to_timedelta(offsets.map(sizes))


def _minutes(offset: str) -> int:
    digits = offset.replace(":", "")
    size = int(digits[1:3]) * 60 + int(digits[3:5])
    return -size if digits[0] == "-" else size


def _digits(text: "pd.Series[str]") -> Moments:
    """Times written in digits: dates such as 20240102, else counts since 1970."""
    for length, form in ((8, "%Y%m%d"), (14, "%Y%m%d%H%M%S"), (12, "%Y%m%d%H%M")):
        if bool(text.dropna().str.fullmatch(rf"(19|20)\d{{{length - 2}}}").all()):
            times = pd.to_datetime(text, format=form, errors="coerce")
            if times.notna().any() and bool((times.isna() == text.isna()).all()):
                return Moments(times, times)
    times = _from_epoch(pd.to_numeric(text, errors="coerce"))
    return Moments(times, times.dt.tz_localize(None))


def _from_epoch(column: "pd.Series[Any]") -> "pd.Series[pd.Timestamp]":
    counts = column.dropna().to_numpy(np.float64)
    units = np.unique(np.searchsorted(EPOCH_BOUNDS, np.abs(counts), side="right"))
    if len(units) > 1:
        raise UnclearError("mixed-time-units", "the times mix several units; convert all to one unit")
    if len(units) == 0 or units[0] == 0:
        first = column.iloc[0] if len(column) else ""
        message = (
            f"{first} is no count of s, ms, us or ns since 1970; pass --time-format or --column time=NAME"
        )
        raise UnclearError("unreadable-time", message)
    unit = EPOCH_UNITS[units[0] - 1]
    return pd.Series(pd.to_datetime(column.to_numpy(), unit=unit, utc=True, errors="coerce"))


def _text(text: "pd.Series[str]") -> Moments:
    if bool(text.dropna().str.fullmatch(r"[+-]?\d+(\.\d+)?").all()):
        return _digits(text.str.replace(r"\.0+$", "", regex=True))
    text = text.str.replace(r"\s*(UTC|GMT)$", "Z", regex=True)
    zoned = text.dropna().str.contains(r"\d\s*(?:Z|[+-]\d{2}:?\d{2})$")
    if zoned.any() and not zoned.all():
        raise UnclearError("mixed-time-zones", "some times carry a zone and some do not; write all in UTC")
    if zoned.any():
        compact = text.str.replace(r"\s+(?=(?:Z|[+-]\d{2}:?\d{2})$)", "", regex=True)
        times = pd.Series(pd.to_datetime(compact.array, format="ISO8601", utc=True, errors="coerce"))
        return Moments(times, _wall(times, text))
    for form in ("ISO8601", *FORMATS):
        if form == "ISO8601" and text.dropna().str.fullmatch(r"\d{8}.*").any():
            continue
        times = pd.Series(pd.to_datetime(text.array, format=form, errors="coerce"))
        if times.notna().any() and (form == "ISO8601" or times.notna().sum() == text.notna().sum()):
            return Moments(times, times)
    return Moments(pd.Series(pd.NaT, index=range(len(text)), dtype="datetime64[ns]"), None)


def advice(column: "pd.Series[Any]") -> str:
    """The formats that read the column, or an example of a format."""
    text = column.dropna().astype(str).str.strip()
    days = ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y", "%d{0}%m{0}%y", "%m{0}%d{0}%y")
    clocks = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
    fitting = [
        form
        for day in days
        for sign in "./-"
        for clock in clocks
        if _reads(text[:1000], form := day.format(sign) + clock)
    ]
    if len(fitting) == 1:
        return f"pass --time-format {fitting[0]!r}"
    if fitting:
        either = " or ".join(repr(form) for form in fitting[:2])
        return f"day or month first? Pass --time-format {either}"
    return "pass --time-format, e.g. '%d.%m.%Y %H:%M', or name the column of the times: --column time=NAME"


def _reads(text: "pd.Series[str]", time_format: str) -> bool:
    return len(text) > 0 and bool(pd.to_datetime(text, format=time_format, errors="coerce").notna().all())


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        message = f"there is no time zone {name!r}; use a name such as UTC or America/New_York"
        raise DataError(message) from error


def localise(wall: "pd.Series[pd.Timestamp]", name: str, *, dates_only: bool) -> Moments:
    """UTC of local times, those of the hour that exists twice by the order of the bars.

    Args:
        name: IANA name of the zone.
        dates_only: the times are dates; midnights that do not exist are moved to the first moment of the day.

    Raises:
        UnclearError: a local time does not exist.
    """
    place = zone(name)
    first = wall.dt.tz_localize(place, ambiguous=np.ones(len(wall), np.bool_), nonexistent="NaT")
    second = wall.dt.tz_localize(place, ambiguous=np.zeros(len(wall), np.bool_), nonexistent="NaT")
    missing = np.flatnonzero((first.isna() & wall.notna()).to_numpy())
    if len(missing) and dates_only:
        first = second = wall.dt.tz_localize(
            place, ambiguous=np.ones(len(wall), np.bool_), nonexistent="shift_forward"
        )
    elif len(missing):
        message = (
            f"{wall.iloc[missing[0]]} does not exist in {name}, where the clocks go forward: pass another "
            f"zone, or one without summer time, such as --timezone {_standard(place)}"
        )
        raise UnclearError("nonexistent-time", message)
    twice = (first != second).to_numpy() & wall.notna().to_numpy()
    chosen = first.copy()
    unclear: list[int] = []
    if not dates_only:
        late, unclear = _second_passes(wall, twice)
        chosen[late] = second[late]
    return Moments(chosen.dt.tz_convert("UTC"), wall, tuple(unclear))


def _second_passes(
    wall: "pd.Series[pd.Timestamp]", twice: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], list[int]]:
    """Rows of ambiguous hours that belong to the second pass, in winter time, and rows left unclear.

    The clock that goes backwards within the hour begins the second pass; times of an hour that never goes
    backwards are unclear.
    """
    late = np.zeros(len(wall), np.bool_)
    unclear: list[int] = []
    if not twice.any():
        return late, unclear
    reverse = bool(wall.iloc[0] > wall.iloc[-1])
    rows = np.flatnonzero(twice)[:: -1 if reverse else 1]
    times = wall.to_numpy("datetime64[ns]").astype(np.int64)
    nights = times[rows] // (24 * 60 * _MINUTE)
    for night in np.unique(nights):
        group = rows[nights == night]
        moves = np.diff(times[group])
        turns = np.flatnonzero(moves < 0)
        if len(turns) == 0 and (moves == 0).sum() == 1 and len(group) == 2:
            turns = np.flatnonzero(moves == 0)
        if len(turns) == 1:
            late[group[turns[0] + 1 :]] = True
        else:
            unclear += group.tolist()
    return late, sorted(unclear)


def _standard(place: ZoneInfo) -> str:
    """Name of the zone without summer time that has the winter time of a zone."""
    offsets = [pd.Timestamp(f"2023-{month:02}-15", tz=place).utcoffset() for month in (1, 7)]
    hours = min(offset.total_seconds() for offset in offsets if offset is not None) / 3600
    return f"Etc/GMT{-int(hours):+d}" if hours == int(hours) and hours else "UTC"


def joined(date: "pd.Series[Any]", clock: "pd.Series[Any]") -> "pd.Series[str]":
    """Date and clock time of two columns as one text; `93000` is half past nine."""
    day = date.astype("string").str.strip()
    hour = clock.astype("string").str.strip().str.replace(r"\.0+$", "", regex=True)
    if bool(hour.dropna().str.fullmatch(r"\d{1,6}").all()):
        width = 6 if bool((hour.dropna().str.len() > 4).any()) or bool((hour.dropna() == "0").all()) else 4
        hour = hour.str.zfill(width)
        minutes = hour.str.slice(0, 2) + ":" + hour.str.slice(2, 4)
        hour = minutes + ":" + hour.str.slice(4, 6) if width == 6 else minutes
    return day + " " + hour


def is_clock(column: "pd.Series[Any]") -> bool:
    """True if every cell is a time of day without a date."""
    text = column.dropna().astype("string").str.strip().str.replace(r"\.0+$", "", regex=True)
    return len(text) > 0 and bool(text.str.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?|\d{1,6}").all())
