"""Reading of bar files: CSV, parquet or feather, with any of the common column names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from clm_core.domain.errors import DataError, Finding, InvalidBars
from clm_core.market.bars import FIELDS

TIME_NAMES = {"timestamp", "time", "date", "datetime", "open_time", "unix", "unix_timestamp", "ts"}
LETTERS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "vol": "volume"}
EPOCH_UNITS: tuple[Literal["s", "ms", "us", "ns"], ...] = ("s", "ms", "us", "ns")
# Seconds of 1973..5138, the same span in milliseconds, ...: no number is a plausible time in two units.
EPOCH_BOUNDS = np.array([1e8, 1e11, 1e14, 1e17])


@dataclass(frozen=True)
class Layout:
    """Layout of a file; every field may be left open for an unambiguous file."""

    time_column: str | None = None
    """Column of the bar-open times."""
    time_format: str | None = None
    """strptime format of times other than ISO 8601, e.g. "%d.%m.%Y %H:%M"."""
    timezone: str | None = None
    """IANA name of the time zone of times without a zone, e.g. "UTC" or "Europe/Athens"."""
    volume_column: str | None = None
    """Column of the traded quantity of the base asset."""


class _UnclearError(Exception):
    def __init__(self, rule: str, message: str) -> None:
        self.rule = rule
        super().__init__(message)


def read_bars(path: Path, symbol: str, layout: Layout) -> pd.DataFrame:
    """Rows of the file in file order, as columns timestamp, open, high, low, close, volume.

    Times without a zone stay without a zone unless `layout` names the zone. Only the meaning of the columns
    is checked; `validation.validate` checks the values.

    Raises:
        InvalidBars: the file cannot be read, or a column, unit or time zone is ambiguous.
    """
    try:
        raw = _table(path)
        raw.columns = pd.Index([_plain(str(column)) for column in raw.columns])
        columns = {
            "timestamp": _timestamp(raw, layout),
            **{field: raw[_only(raw, [field], field, "rename the others")] for field in FIELDS[:4]},
            "volume": raw[_volume_column(raw, symbol, layout)],
        }
    except _UnclearError as unclear:
        raise InvalidBars(str(path), [Finding(unclear.rule, (), 0, str(unclear))]) from unclear
    return pd.DataFrame(columns)


def _table(path: Path) -> pd.DataFrame:
    kind = path.suffix.lower()
    try:
        if kind == ".csv":
            frame = pd.read_csv(path)
        elif kind == ".parquet":
            frame = pd.read_parquet(path)
        elif kind == ".feather":
            frame = pd.read_feather(path)
        else:
            raise DataError(f"{path} is no .csv, .parquet or .feather file; convert the file to one")
    except ValueError as error:
        raise _UnclearError("unreadable-file", f"not readable as {kind[1:]}: {error}") from error
    if isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.reset_index(names=str(frame.index.name or "timestamp"))
    return frame


def _plain(column: str) -> str:
    """Normalised column name: `Open Time`, `<OPEN_TIME>` and `open-time` become open_time, `O` becomes
    open."""
    name = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")
    return LETTERS.get(name, name)


def _only(raw: pd.DataFrame, names: Sequence[str], meaning: str, remedy: str) -> str:
    """The single column with one of the names.

    Raises:
        _UnclearError: no column, or more than one, has one of the names.
    """
    matching = [column for column in raw.columns if column in names]
    if not matching:
        have = ", ".join(raw.columns)
        raise _UnclearError(
            "missing-columns", f"no column for {meaning} (lines above the header?) among {have}"
        )
    if len(matching) > 1:
        raise _UnclearError("ambiguous-columns", f"{', '.join(matching)}: which is the {meaning}? {remedy}")
    return matching[0]


def _volume_column(raw: pd.DataFrame, symbol: str, layout: Layout) -> str:
    """Column of the base asset's volume: for BTCUSD `volume_btc` if present, and never `volume_usd`."""
    remedy = "name the column of the base asset: --volume-column NAME"
    if layout.volume_column is not None:
        return _only(raw, [_plain(layout.volume_column)], layout.volume_column, remedy)
    pair = re.sub(r"[^a-z0-9]", "", symbol.lower())
    assets = {
        column: column.removeprefix("volume_") for column in raw.columns if column.startswith("volume_")
    }
    base = [column for column, asset in assets.items() if pair.startswith(asset)]
    others = [column for column, asset in assets.items() if not pair.endswith(asset)]
    return _only(raw, base or ["volume", *others], "volume", remedy)


def _timestamp(raw: pd.DataFrame, layout: Layout) -> "pd.Series[pd.Timestamp]":
    names = TIME_NAMES if layout.time_column is None else {_plain(layout.time_column)}
    matching = [column for column in raw.columns if column in names]
    if len(matching) == len(set(matching)) > 1:
        columns = [_times(raw[column], layout) for column in matching]
        if agreed := _agreed(columns):
            return agreed[0]
    remedy = "their times differ; name the column of the open times: --time-column NAME"
    name = _only(raw, sorted(names), layout.time_column or "the time of opening", remedy)
    return _times(raw[name], layout)


def _agreed(columns: "list[pd.Series[pd.Timestamp]]") -> "list[pd.Series[pd.Timestamp]]":
    """The columns, columns with a zone first, if all hold the same instants (without a zone read as UTC);
    else an empty list."""
    instants = [pd.to_datetime(column, utc=True) for column in columns]
    if all(instants[0].equals(other) for other in instants[1:]):
        return sorted(columns, key=lambda column: column.dt.tz is None)
    return []


def _times(column: "pd.Series[pd.Timestamp]", layout: Layout) -> "pd.Series[pd.Timestamp]":
    if layout.time_format is not None:
        times = pd.to_datetime(column.astype(str), format=layout.time_format, errors="coerce")
    elif pd.api.types.is_datetime64_any_dtype(column):
        times = column
    elif pd.api.types.is_numeric_dtype(column):
        times = _from_epoch(column)
    else:
        times = _from_text(column.astype("string"))
    if times.isna().all():
        message = f"{column.iloc[0]!r} is no ISO 8601 time; pass --time-format, e.g. '%d.%m.%Y %H:%M'"
        raise _UnclearError("unreadable-time", message)
    if layout.timezone is not None and times.dt.tz is None:
        times = times.dt.tz_localize(_zone(layout.timezone), ambiguous="NaT", nonexistent="NaT")
    return times


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        message = f"there is no time zone {name!r}; use a name such as UTC or America/New_York"
        raise DataError(message) from error


def _from_epoch(column: "pd.Series[Any]") -> "pd.Series[pd.Timestamp]":
    counts = column.dropna().to_numpy(np.float64)
    units = np.unique(np.searchsorted(EPOCH_BOUNDS, np.abs(counts), side="right"))
    if len(units) > 1:
        raise _UnclearError("mixed-time-units", "the times mix several units; convert all to one unit")
    if len(units) == 0 or units[0] == 0:
        message = f"{column.iloc[0]} is no count of s, ms, us or ns since 1970; pass --time-format"
        raise _UnclearError("unreadable-time", message)
    unit = EPOCH_UNITS[units[0] - 1]
    return pd.to_datetime(column, unit=unit, utc=True, errors="coerce")


def _from_text(column: "pd.Series[str]") -> "pd.Series[pd.Timestamp]":
    zoned = column.dropna().str.contains(r"\d(?:Z|[+-]\d{2}:?\d{2})$")
    if zoned.any() and not zoned.all():
        raise _UnclearError("mixed-time-zones", "some times carry a zone and some do not; write all in UTC")
    return pd.Series(pd.to_datetime(column.array, format="ISO8601", utc=bool(zoned.any()), errors="coerce"))
