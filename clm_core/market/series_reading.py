"""Reading of own series from files and tables, with the time each value became known."""

import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clm_core.domain.errors import InvalidSeries
from clm_core.market import times
from clm_core.market.arrow_files import read_feather, read_parquet
from clm_core.market.bars import Floats
from clm_core.market.series import KnownSeries, Times
from clm_core.market.tables import FOREIGN_ERRORS, UnclearError, plain_name, refuse_unknown_format

TIMES = ("time", "timestamp", "date", "datetime", "event_time", "calc_time", "funding_time")
KNOWN = (
    "known",
    "known_at",
    "known_time",
    "published",
    "published_at",
    "released",
    "released_at",
    "available_at",
    "release_time",
)
VALUES = ("value", "close", "rate", "funding_rate", "last_funding_rate", "open_interest", "sum_open_interest")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
KNOWN_HELP = (
    "Name the column with the time each value became known, --known-column COLUMN, or state the "
    "delay after its "
    "time, e.g. --known-after 8h (--known-after 0s: known at once)"
)


@dataclass(frozen=True)
class SeriesLayout:
    """Columns of a file with a series; None for usual names."""

    time_column: str | None = None
    known_column: str | None = None
    """Column with the time from which on a value was known."""
    known_after: int | None = None
    """Nanoseconds after its time at which each value became known, in place of a column."""
    value_column: str | None = None
    timezone: str | None = None
    """IANA name of the zone of times without a zone."""
    time_format: str | None = None


def duration(text: str) -> int:
    """Nanoseconds of `8h`, `90m`, `30s`, `2d`.

    Raises:
        InvalidSeries: the text is no duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if match is None:
        raise InvalidSeries(f"{text!r} is no duration: write 30s, 90m, 8h or 2d")
    return round(float(match[1]) * _UNITS[match[2]] * 1e9)


def read_series(
    name: str, origin: str, content: bytes, layout: SeriesLayout, max_age: int | None = None
) -> KnownSeries:
    """Series of the content of a CSV, parquet or feather file.

    Args:
        origin: name of the file; the suffix names the format.

    Raises:
        InvalidSeries: the file cannot be read, a column is missing or ambiguous, or a value breaks a rule.
        DataError: the file has no known suffix.
    """
    try:
        frame = _table(origin, content)
        time_column = _column(frame, layout.time_column, TIMES, "the time of the values", "--time-column")
        value_column = _column(frame, layout.value_column, VALUES, "the values", "--value-column")
        time = _nanoseconds(frame[time_column], layout)
        known = _known(frame, layout, time)
        return KnownSeries.of(name, time, known, _numbers(frame[value_column]), max_age)
    except UnclearError as error:
        raise InvalidSeries(f"{origin} cannot be read as a series: {error}") from error
    except InvalidSeries as error:
        raise InvalidSeries(f"{origin}: {error}") from error


def series_of_table(name: str, table: "pd.DataFrame | KnownSeries") -> KnownSeries:
    """Series of a frame with the columns `time`, `known` and `value`.

    Raises:
        InvalidSeries: a column is missing, or a value breaks a rule.
    """
    if isinstance(table, KnownSeries):
        return table
    missing = [column for column in ("time", "known", "value") if column not in table]
    if missing:
        raise InvalidSeries(
            f"the table of the series {name} has no column {', '.join(missing)}: give time, known and value"
        )
    layout = SeriesLayout(timezone="UTC")
    time, known = (_nanoseconds(table[column].reset_index(drop=True), layout) for column in ("time", "known"))
    return KnownSeries.of(name, time, known, _numbers(table["value"]))


def series_of_tables(tables: "Mapping[str, pd.DataFrame | KnownSeries]") -> dict[str, KnownSeries]:
    return {name: series_of_table(name, table) for name, table in tables.items()}


def _table(origin: str, content: bytes) -> pd.DataFrame:
    """Columns of a file with a header line, by normalised name."""
    refuse_unknown_format(origin)
    read: Mapping[str, Callable[[bytes], pd.DataFrame]] = {
        ".parquet": lambda table: read_parquet(table).to_pandas(),
        ".feather": lambda table: read_feather(table).to_pandas(),
        ".gz": partial(_text_table, compression="gzip"),
        ".zip": partial(_text_table, compression="zip"),
    }
    try:
        frame = read.get(Path(origin).suffix.lower(), _text_table)(content)
    except FOREIGN_ERRORS as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnclearError("unreadable-file", f"it is not readable: {cause}") from error
    frame = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    frame.columns = pd.Index([plain_name(str(name)) for name in frame.columns])
    if not len(frame):
        raise UnclearError("empty", "there are no rows in it")
    if twice := [name for name, count in Counter(frame.columns).items() if count > 1]:
        raise UnclearError("ambiguous-columns", f"the column {twice[0]} is there twice: remove one")
    return frame


def _text_table(content: bytes, compression: Any = None) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content), dtype=str, skipinitialspace=True, compression=compression)


def _known(frame: pd.DataFrame, layout: SeriesLayout, time: Times) -> Times:
    if layout.known_after is not None and layout.known_column is not None:
        raise InvalidSeries("--known-after and --known-column contradict each other: give one of them")
    if layout.known_after is not None:
        return time + layout.known_after
    try:
        meaning = "the time each value became known"
        column = _column(frame, layout.known_column, KNOWN, meaning, "--known-column")
    except UnclearError as error:
        raise InvalidSeries(f"{error}. {KNOWN_HELP}") from error
    return _nanoseconds(frame[column], layout)


def _column(frame: pd.DataFrame, given: str | None, usual: Sequence[str], meaning: str, option: str) -> str:
    names = list(frame.columns)
    names_tried = usual if given is None else [plain_name(given)]
    column = next((name for name in names_tried if name in names), None)
    if column is None:
        missing = f"no column for {meaning}" if given is None else f"no column {given}"
        raise UnclearError(
            "missing-columns", f"there is {missing} among {', '.join(names)}: pass {option} COLUMN"
        )
    return column


def _nanoseconds(column: "pd.Series[Any]", layout: SeriesLayout) -> Times:
    moments = times.parse(_counted(column), layout.time_format)
    parsed = moments.times
    missing = np.flatnonzero(parsed.isna().to_numpy())
    if len(missing):
        raise InvalidSeries(f"{column.iloc[missing[0]]!r} in row {missing[0]} is no time known here")
    if parsed.dt.tz is None:
        if layout.timezone is None:
            raise InvalidSeries("the times carry no zone: pass --timezone UTC, or the zone of the file")
        try:
            parsed = parsed.dt.tz_localize(layout.timezone, ambiguous="raise", nonexistent="raise")
        # pandas and zoneinfo raise their own kinds for unknown zones and for hours that exist twice or never
        except (ValueError, KeyError, LookupError) as error:
            raise InvalidSeries(f"the times are no times of {layout.timezone}: {error}") from error
    utc = parsed.dt.tz_convert("UTC").dt.tz_localize(None)
    return np.asarray(utc.to_numpy("datetime64[ns]").astype(np.int64))


def _counted(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """The column as numbers if all of its text is a count since 1970."""
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return column
    text = column.astype("string").str.strip()
    # ten digits at least: eight are a date
    return pd.to_numeric(text) if bool(text.str.fullmatch(r"\d{10,19}").all()) else column


def _numbers(column: "pd.Series[Any]") -> Floats:
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise InvalidSeries(f"{column.iloc[wrong[0]]!r} in row {wrong[0]} is no finite number")
    return values
