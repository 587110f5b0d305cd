"""Reading of bar files: the meaning of the columns of a table, with any of the common column names."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from clm_core.domain.errors import DataError, Finding, InvalidBars, InvalidSymbol
from clm_core.domain.spellings import normalise_symbol
from clm_core.market import times
from clm_core.market.columns import FIELDS
from clm_core.market.tables import (
    FOREIGN_ERRORS,
    Table,
    UnclearError,
    plain_name,
    read_table,
    refuse_unknown_format,
    table_of,
)
from clm_core.market.timeframes import Timeframe

DATE_NAMES = frozenset({"date", "day", "dtyyyymmdd"})
CLOCK_NAMES = frozenset({"time", "hour", "timestamp"})
TIME_NAMES = (
    DATE_NAMES
    | CLOCK_NAMES
    | {"datetime", "date_time", "open_time", "unix", "unix_timestamp", "ts", "t", "gmt_time", "utc_time"}
    | {"local_time", "start", "start_time", "opentime", "price_date"}
)
SYMBOL_NAMES = frozenset({"symbol", "ticker", "tic", "pair", "instrument", "sym"})
NOT_ASSETS = frozenset(
    {"ma", "sma", "ema", "avg", "average", "delta", "change", "weighted", "osc", "up", "down"}
)
"""Endings of volume columns that name an indicator, not an asset: TradingView's `Volume MA`."""


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
    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Columns by name or number from 1 for `time` and the fields: {"close": "Adj Close", "volume": "6"}."""
    no_volume: bool = False
    """The file has no volume: every bar gets 0."""
    by_date: bool = False
    """Daily and weekly bars are stored under the date of their opening, whatever the hour."""
    rows_of: str | None = None
    """Only the rows with the value in the symbol column."""


@dataclass(frozen=True)
class ReadFile:
    """The rows of a file."""

    frame: pd.DataFrame
    """Columns timestamp, open, high, low, close, volume; `opened`, the real open times in UTC, for daily bars
    stored under their date."""
    findings: tuple[Finding, ...]
    """Broken rules that an import may overrule."""
    adjusted: Mapping[str, int]
    """Lines left out and zones taken for granted, each with the number of lines."""


def read_bars(path: Path, symbol: str, layout: Layout) -> pd.DataFrame:
    """Rows of the file in file order, as columns timestamp, open, high, low, close, volume.

    Times without a zone stay without a zone unless `layout` or the known layout of the file names the zone.
    Only the meaning of the columns is checked; `bar_rules.checked_columns` checks the values.

    Raises:
        InvalidBars: the file cannot be read, or a column, unit or time zone is ambiguous.
        DataError: the file does not exist or has no known suffix.
    """
    file = read(str(path), content_of(path), symbol, layout, None)
    if file.findings:
        raise InvalidBars(str(path), file.findings)
    return file.frame


def content_of(path: Path) -> bytes:
    """Raises:
    DataError: the file has no known suffix, does not exist or cannot be read.
    """
    refuse_unknown_format(path.name)
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be read: {reason}") from error


def read(origin: str, content: bytes, symbol: str, layout: Layout, timeframe: Timeframe | None) -> ReadFile:
    """Rows of a file by its content, with the findings that an import may overrule.

    Args:
        origin: name of the file; the suffix names the format.
        timeframe: length of the bars, to recognise dates.

    Raises:
        InvalidBars: the file cannot be read, or a column, unit or time zone is ambiguous.
        DataError: the file has no known suffix, or an option of the layout does not fit.
    """
    given = layout.columns.get("time", layout.time_column)
    time_names = TIME_NAMES if given is None else TIME_NAMES | {plain_name(given)}
    return _read(
        origin, lambda: read_table(origin, content, frozenset(time_names)), symbol, layout, timeframe
    )


def read_frame(
    origin: str, frame: pd.DataFrame, symbol: str, layout: Layout, timeframe: Timeframe
) -> ReadFile:
    """Rows of a table in memory, read as those of a file with the same columns.

    Raises:
        InvalidBars: a column, unit or time zone is ambiguous.
        DataError: an option of the layout does not fit.
    """
    return _read(origin, lambda: table_of(frame), symbol, layout, timeframe)


def _read(
    origin: str, table: Callable[[], Table], symbol: str, layout: Layout, timeframe: Timeframe | None
) -> ReadFile:
    try:
        try:
            return _Reader(table(), symbol, layout, timeframe).read()
        except FOREIGN_ERRORS as error:
            cause = str(error).splitlines()[0] if str(error) else ""
            raise UnclearError("unreadable-file", f"{type(error).__name__}: {cause}") from error
    except UnclearError as unclear:
        raise InvalidBars(origin, [Finding(unclear.rule, (), 0, str(unclear))]) from unclear


def same_symbol(value: str, symbol: str) -> bool:
    """True if a name in a file is a spelling of the symbol: `BTC-USD` in a file of BTCUSD."""
    try:
        if normalise_symbol(value) == normalise_symbol(symbol):
            return True
    except InvalidSymbol:
        pass
    letters = [re.sub(r"[^A-Z0-9]", "", text.upper()) for text in (value, symbol)]
    return ":" not in value and bool(letters[0]) and letters[0] == letters[1]


class _Reader:
    def __init__(self, table: Table, symbol: str, layout: Layout, timeframe: Timeframe | None) -> None:
        self._table = table
        self._symbol = symbol
        self._layout = layout
        self._timeframe = timeframe
        self._findings: list[Finding] = []
        self._adjusted = dict(self._table.adjusted)
        self._usable = list(range(len(self._table.names)))
        """Numbers of the columns of the symbol."""

    def read(self) -> ReadFile:
        self._check_tickers()
        rows = self._check_symbol_column()
        frame = self._table.frame if rows is None else self._table.frame[rows].reset_index(drop=True)
        fields = {name: frame[self._field(name)] for name in FIELDS[:4]}
        fields["volume"] = self._volume(frame)
        fields = {name: _readable(column) for name, column in fields.items()}
        if frame.empty:
            raise UnclearError("empty", "there is no bar in it")
        values = pd.DataFrame(fields)
        moments, zone = self._moments(frame)
        times_read = moments.times.reset_index(drop=True)
        columns = {"timestamp": times_read, **values.reset_index(drop=True)}
        result = pd.DataFrame(columns)
        result = self._by_date(result, moments, zone)
        if moments.ambiguous:
            message = (
                "the local time exists twice, where the clocks are put back, and the bars around do not tell "
                "which it is: convert the times to UTC, or read them as summer time: --allow ambiguous-time"
            )
            self._findings.append(
                Finding("ambiguous-time", moments.ambiguous[:20], len(moments.ambiguous), message)
            )
        missing = values.isna().all(axis=1).to_numpy()
        if missing.any() and not missing.all():
            self._adjusted["empty-rows"] = int(missing.sum())
            result = result[~missing].reset_index(drop=True)
        return ReadFile(result, tuple(self._findings), self._adjusted)

    # columns

    def _check_tickers(self) -> None:
        tickers = self._table.tickers
        stated = list(dict.fromkeys(ticker for ticker in tickers if ticker is not None))
        requested = self._layout.rows_of or self._symbol
        if not stated:
            return
        matching = [ticker for ticker in stated if same_symbol(ticker, requested)]
        if not matching and len(stated) > 1:
            raise UnclearError(
                "other-symbol",
                f"the header names {', '.join(stated[:5])}, not {requested}: pass the one to import, "
                f"e.g. --rows-of {stated[0]}",
            )
        if not matching:
            self._other_symbol(f"the header names {stated[0]}", (), 0)
        chosen = matching[0] if matching else stated[0]
        self._usable = [number for number in self._usable if tickers[number] in (None, chosen)]

    def _check_symbol_column(self) -> "pd.Series[bool] | None":
        """Rows of the symbol, where only a part of the file is requested."""
        plain = self._table.plain
        columns = [number for number in self._usable if plain[number] in SYMBOL_NAMES]
        rows_of = self._layout.rows_of
        if not columns or self._table.frame.empty:
            if rows_of is not None and not any(self._table.tickers):
                raise DataError("--rows-of needs a symbol column, and the file has none")
            return None
        name = self._table.names[columns[0]]
        stated = self._table.frame[columns[0]].astype("string").str.strip()
        spellings = [each for each in stated.dropna().unique() if each]
        if rows_of is not None:
            rows = stated.isin([each for each in spellings if same_symbol(each, rows_of)])
            if not rows.any():
                raise DataError(f"column {name} has no {rows_of}; it has {', '.join(spellings[:5])}")
            return rows
        others = [each for each in spellings if not same_symbol(each, self._symbol)]
        if others:
            broken = np.flatnonzero(stated.isin(others).to_numpy(np.bool_))
            changes = f" from row {broken[0]} on" if broken[0] > 0 else ""
            message = f"column {name} says {', '.join(others[:3])}{changes}"
            if len(spellings) > 1:
                message += f", and {len(spellings)} symbols in all: one of them with --rows-of {spellings[0]}"
            self._other_symbol(message, tuple(broken[:20].tolist()), len(broken))
        return None

    def _other_symbol(self, stated: str, rows: tuple[int, ...], count: int) -> None:
        message = (
            f"{stated}, but --symbol {self._symbol} was passed: correct it. Meant so: --allow other-symbol"
        )
        self._findings.append(Finding("other-symbol", rows, count, message))

    def _named(self, names: Iterable[str]) -> list[int]:
        plain = self._table.plain
        plain_names = set(names)
        return [number for number in self._usable if plain[number] in plain_names]

    def _given(self, name: str, meaning: str) -> int:
        """Column by the name, as written or plain, or by the number from 1."""
        exact = [number for number in self._usable if self._table.names[number] == name]
        matching = exact if len(exact) == 1 else self._named([plain_name(name)])
        if not matching and name.isascii() and name.isdigit() and 1 <= int(name) <= len(self._table.names):
            return int(name) - 1
        return self._only(matching, meaning)

    def _only(self, matching: Sequence[int], meaning: str, remedy: str | None = None) -> int:
        """The single column of several candidates.

        Raises:
            UnclearError: no column matches, or more than one.
        """
        if not matching:
            have = ", ".join(name or "(no name)" for name in self._table.names[:20])
            option = "time" if "time" in meaning else meaning
            hint = f"name the column, or give its number: --column {option}=NUMBER"
            if not self._table.has_header:
                hint = (
                    "the file has no header line and no known layout; give the numbers of all columns: "
                    "--column time=1 --column open=2 --column high=3 --column low=4 --column close=5 "
                    "--column volume=6"
                )
            raise UnclearError(
                "missing-columns",
                f"no column for {meaning} (lines above the header?) among {have}; "
                f"{remedy if remedy and self._table.has_header else hint}",
            )
        if len(matching) > 1:
            have = ", ".join(self._table.names[number] for number in matching)
            numbers = " or ".join(f"--column {meaning}={number + 1}" for number in matching[:3])
            raise UnclearError(
                "ambiguous-columns",
                f"{have}: which is the {meaning}? {remedy or f'Give the number of the column: {numbers}'}",
            )
        return matching[0]

    def _field(self, name: str) -> int:
        if name in self._layout.columns:
            return self._given(self._layout.columns[name], name)
        return self._only(self._named([name]), name)

    def _volume(self, frame: pd.DataFrame) -> "pd.Series[Any]":
        """The base asset's volume: for BTCUSD `volume_btc` if present, and never `volume_usd`.

        MetaTrader has two: the real volume, or the number of ticks where the real volume is 0 throughout.
        """
        if self._layout.no_volume:
            return pd.Series(0.0, index=frame.index)
        given = self._layout.columns.get("volume", self._layout.volume_column)
        if given is not None:
            return frame[self._given(given, "volume")]
        plain = self._table.plain
        ticks = self._named(["tickvol"])
        if ticks:
            real = self._named(["volume"])
            traded = real and bool((pd.to_numeric(frame[real[0]], errors="coerce") > 0).any())
            return frame[real[0] if traded else ticks[0]]
        pair = re.sub(r"[^a-z0-9]", "", self._symbol.lower())
        assets = {
            number: plain[number].removeprefix("volume_")
            for number in self._usable
            if plain[number].startswith("volume_")
        }
        assets = {number: asset for number, asset in assets.items() if asset not in NOT_ASSETS}
        base = [number for number, asset in assets.items() if pair.startswith(asset)]
        others = [number for number, asset in assets.items() if not pair.endswith(asset)]
        candidates = base or [*self._named(["volume"]), *others]
        remedy = "name the column of the base asset: --volume-column NAME"
        if not candidates:
            remedy = "a market without one, such as foreign exchange: --no-volume stores 0"
        elif len({plain[number] for number in candidates}) < len(candidates):
            remedy = f"give the number of the column: --column volume={candidates[0] + 1}"
        return frame[self._only(candidates, "volume", remedy)]

    # times

    def _moments(self, frame: pd.DataFrame) -> tuple[times.Moments, str | None]:
        """Times of the rows, and the zone they were localised to."""
        moments = self._parsed(frame)
        if moments.times.dt.tz is not None:
            return moments, None
        zone = self._layout.timezone or self._table.zone
        if zone is None:
            return moments, None
        if self._layout.timezone is None:
            self._adjusted[f"zone-taken-as-{zone}"] = len(frame)
        midnight = moments.times.dropna().dt.normalize().eq(moments.times.dropna()).all()
        dates_only = bool(midnight) and self._timeframe in (Timeframe.D1, Timeframe.W1)
        return times.localise(moments.times, zone, dates_only=dates_only), zone

    def _parsed(self, frame: pd.DataFrame) -> times.Moments:
        form = self._layout.time_format
        given = self._layout.columns.get("time", self._layout.time_column)
        if given is not None:
            return times.parse(frame[self._given(given, "time")], form)
        date = self._named(DATE_NAMES)
        clock = [number for number in self._named(CLOCK_NAMES) if times.is_clock(frame[number])]
        if len(date) == len(clock) == 1:
            return times.parse(times.joined(frame[date[0]], frame[clock[0]]), form)
        matching = self._named(TIME_NAMES)
        if not matching:
            matching = self._unnamed_times(frame)
        if len(matching) > 1:
            return self._agreeing(frame, matching)
        return times.parse(frame[self._only(matching, "the time of opening")], form)

    def _unnamed_times(self, frame: pd.DataFrame) -> list[int]:
        """Columns that hold times by their values: dates as text, or epochs in a column without a name."""
        numbers = []
        for number in self._usable:
            column = frame[number].dropna().head(20)
            unnamed = self._table.plain[number] in ("", "index", "unnamed_0") and number == 0
            if pd.api.types.is_numeric_dtype(column) and not unnamed:
                continue
            try:
                parsed = times.parse(column.reset_index(drop=True), self._layout.time_format).times
            except (UnclearError, *FOREIGN_ERRORS):
                continue
            if len(column) and parsed.notna().all():
                numbers.append(number)
        return numbers

    def _agreeing(self, frame: pd.DataFrame, matching: Sequence[int]) -> times.Moments:
        """The column with a zone of several that hold the same instants (without a zone read as UTC)."""
        names = [self._table.plain[number] for number in matching]
        parsed = [times.parse(frame[number], self._layout.time_format) for number in matching]
        instants = [pd.to_datetime(each.times, utc=True).dt.as_unit("ns") for each in parsed]
        if len(set(names)) == len(names) and all(instants[0].equals(other) for other in instants[1:]):
            return sorted(parsed, key=lambda each: each.times.dt.tz is None)[0]
        have = ", ".join(self._table.names[number] for number in matching)
        options = " or ".join(f"--column time={number + 1}" for number in matching[:3])
        raise UnclearError(
            "ambiguous-columns",
            f"{have}: which is the time of opening? their times differ; name the column of the open times: "
            f"--time-column NAME, or {options}",
        )

    def _by_date(self, result: pd.DataFrame, moments: times.Moments, zone: str | None) -> pd.DataFrame:
        """Daily bars under the exchange's date: always if they open at midnight there, else on request."""
        timeframe = self._timeframe
        if timeframe not in (Timeframe.D1, Timeframe.W1):
            if self._layout.by_date:
                raise DataError(
                    "--by-date stores daily and weekly bars under their date: pass --timeframe 1d"
                )
            return result
        stamps = result["timestamp"]
        wall = moments.wall
        if self._layout.by_date:
            if stamps.dt.tz is not None and self._layout.timezone is not None and zone is None:
                wall = stamps.dt.tz_convert(times.zone(self._layout.timezone)).dt.tz_localize(None)
            wall = (stamps.dt.tz_localize(None) if wall is None else wall).dt.normalize()
        elif stamps.dt.tz is None or wall is None or not _midnights(wall) or _midnights(stamps):
            return result
        wall = wall.reset_index(drop=True)
        if timeframe is Timeframe.W1 and self._layout.by_date:
            wall = wall - pd.to_timedelta(wall.dt.day_of_week, unit="D")
        opened = stamps if stamps.dt.tz is not None else wall.dt.tz_localize("UTC")
        return result.assign(timestamp=wall.dt.tz_localize("UTC"), opened=opened)


def _readable(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Numbers, or the text of a column, so that a refusal can show the cell."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    return column if numbers.isna().any() and pd.api.types.is_string_dtype(column) else numbers


def _midnights(stamps: "pd.Series[pd.Timestamp]") -> bool:
    known = stamps.dropna()
    return bool((known == known.dt.normalize()).all())
