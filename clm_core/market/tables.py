"""Tables of data files: CSV of any usual dialect, parquet and feather, with the names of the columns.

Files without a header line are recognised by shape, see `HEADERLESS`; a new layout is one entry.
"""

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from clm_core.domain.errors import DataError
from clm_core.market.arrow_files import read_feather, read_parquet

TEXT = (".csv", ".txt", ".tsv", ".asc", ".prn")
FOREIGN_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    csv.Error,
)
"""Errors of pandas, pyarrow and the standard library on files that are not what they seem."""

_LETTERS = {
    **{"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "vol": "volume"},
    **{"tick_volume": "tickvol", "tickvolume": "tickvol"},
}
_PRICES = {"open", "high", "low", "close"}
_HEAD = 60
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_NOTHING = {"", "null", "nan", "none", "na", "n/a", "-"}
_EPOCH = re.compile(r"\d{10}(\d{3}){0,3}")
_DATE = re.compile(r"\d{4}[.-]\d{2}[.-]\d{2}")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")
_STAMP = re.compile(r"\d{8} \d{6}")
_TIME = re.compile(
    r"\d{4}[./-]\d{1,2}[./-]\d{1,2}([ T].*)?|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}([ T].*)?|\d{8}([ T].*)?"
)


class UnclearError(Exception):
    """A file, column, unit or zone is ambiguous or unreadable: the rule, and a message with the remedy."""

    def __init__(self, rule: str, message: str) -> None:
        self.rule = rule
        super().__init__(message)


@dataclass(frozen=True)
class HeaderlessLayout:
    """A file without a header line: the kind of each cell, and the names of the columns."""

    source: str
    shape: str
    """A letter for each cell: E an epoch, D a date, C a clock time, S `20240102 170000`, I a date or time,
    N a number."""
    names: str
    zone: str | None = None
    """Zone of the times by the documentation of the source, or UTC where the source documents none."""


_OHLCV = "open high low close volume"
HEADERLESS = (
    HeaderlessLayout(
        "Binance",
        "ENNNNNENNNNN",
        f"open_time {_OHLCV} close_time quote_volume count taker_buy_volume taker_buy_quote_volume ignore",
    ),
    HeaderlessLayout("Kraken OHLCVT", "ENNNNNN", f"time {_OHLCV} trades"),
    HeaderlessLayout("Kraken REST", "ENNNNNNN", "time open high low close vwap volume count"),
    HeaderlessLayout("MetaTrader 4", "DCNNNNN", f"date time {_OHLCV}", "UTC"),
    HeaderlessLayout(
        "MetaTrader 5", "DCNNNNNNN", "date time open high low close tickvol volume spread", "UTC"
    ),
    HeaderlessLayout("HistData", "SNNNNN", f"time {_OHLCV}", "Etc/GMT+5"),
    HeaderlessLayout("epoch and OHLCV", "ENNNNN", f"time {_OHLCV}"),
    HeaderlessLayout("time and OHLCV", "INNNNN", f"time {_OHLCV}"),
)
"""Known layouts without a header line, the first that fits is taken."""

HEADER_ZONES: Mapping[frozenset[str], str] = {
    frozenset({"date", "tickvol", "spread"}): "UTC",
}
"""Zones of layouts with a header line, by column names: MetaTrader writes the clock of the server, and no
zone."""


@dataclass(frozen=True)
class Table:
    """Columns of a file, in file order."""

    frame: pd.DataFrame
    """The values; columns are numbered from 0."""
    names: list[str]
    """Names as written; "" where the file has none."""
    tickers: list[str | None]
    """Symbols of the columns in a file with a header of several lines."""
    zone: str | None = None
    """Zone of times without a zone, where the layout implies one."""
    adjusted: dict[str, int] = field(default_factory=dict)
    """Lines left out, by the reason."""
    has_header: bool = True
    """False if the names are plain numbers, for lack of a header line and a known layout."""

    @property
    def plain(self) -> list[str]:
        return [plain_name(name) for name in self.names]


def plain_name(name: str) -> str:
    """Normalised column name: `Open Time`, `<OPEN_TIME>` and `open-time` become open_time, `O` becomes
    open."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return _LETTERS.get(plain, plain)


def read_table(name: str, content: bytes, time_names: frozenset[str]) -> Table:
    """The table in a file.

    Args:
        name: name of the file: the suffix names the format; `.gz` and `.zip` are unpacked.
        time_names: plain names of columns with times, which are read as text.

    Raises:
        UnclearError: the content is not readable as the format.
        DataError: the suffix names no known format.
    """
    refuse_unknown_format(name)
    suffixes = re.findall(r"\.[a-z0-9]+", name.lower())
    kind = suffixes[-1] if suffixes else ""
    try:
        if kind == ".gz":
            content = gzip.decompress(content)
        elif kind == ".zip":
            content = _only_member(content)
        if kind in (".gz", ".zip"):
            kind = next((each for each in reversed(suffixes[:-1]) if each in (*TEXT, ".parquet")), ".csv")
        if kind in TEXT:
            return _from_text(_decoded(content), time_names)
        if kind == ".parquet":
            return table_of(read_parquet(content).to_pandas())
        if kind == ".feather":
            return table_of(read_feather(content).to_pandas())
    except FOREIGN_ERRORS as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnclearError("unreadable-file", f"not readable as {kind[1:]}: {cause}") from error
    raise AssertionError("unreachable: refuse_unknown_format has refused the others")


def refuse_unknown_format(name: str) -> None:
    """Raises:
    DataError: the suffix names no known format.
    """
    if not re.search(r"\.(csv|txt|tsv|asc|prn|parquet|feather|gz|zip)$", name.lower()):
        raise DataError(f"{name} is no .csv, .parquet or .feather file; convert the file to one of them")


def _only_member(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [each for each in archive.infolist() if not each.is_dir()]
        if len(members) != 1:
            raise ValueError(f"the archive holds {len(members)} files: unpack it and import them one by one")
        return archive.read(members[0])


def _decoded(content: bytes) -> str:
    """Text in UTF-8 or UTF-16 by the byte-order mark, else UTF-8, else Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content.decode("utf-16")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    if "\x00" in text:
        raise ValueError("there are NUL characters in it: no text file, or UTF-16 without its mark")
    return text


def _from_text(text: str, time_names: frozenset[str]) -> Table:
    head = list(islice((line for line in io.StringIO(text) if line.strip()), _HEAD))
    if not head:
        raise UnclearError("empty", "the file is empty")
    separator = _separator(head)
    rows = [[cell.strip() for cell in row] for row in csv.reader(head, delimiter=separator)]
    first = next((number for number, row in enumerate(rows) if _is_data(row)), None)
    if first == 0:
        layout = _headerless(rows)
        names = layout.names.split() if layout else [str(number + 1) for number in range(len(rows[0]))]
        header: list[list[str]] = []
        tickers: list[str | None] = [None for _ in names]
        zone = layout.zone if layout else None
    else:
        header = rows[:1] if first is None else rows[:first]
        names, tickers, header = _header(header, rows[first] if first is not None else rows[0])
        zone = _zone_of({plain_name(name) for name in names})
    adjusted: dict[str, int] = {}
    has_header = bool(header) or not names[0].isdigit()
    if first is None:
        return Table(pd.DataFrame(columns=range(len(names))), names, tickers, zone)
    decimal = "," if separator != "," and _decimal_comma(rows[first:]) else "."
    frame = pd.read_csv(
        io.StringIO("".join(_after(text, head[first - 1] if first else None))),
        sep=separator,
        header=None,
        names=list(range(max(len(names), len(rows[first])))),
        index_col=False,
        decimal=decimal,
        dtype={number: str for number, name in enumerate(names) if plain_name(name) in time_names},
        na_values=sorted(_NOTHING - {""}),
        skipinitialspace=True,
        low_memory=False,
    )
    extra = frame.shape[1] - len(names)
    names += [""] * extra
    tickers += [None] * extra
    repeated = _repeated_headers(frame, header)
    if repeated.any():
        frame = frame[~repeated].reset_index(drop=True)
        adjusted["repeated-header"] = int(repeated.sum())
    return Table(_as_numbers(frame, decimal), names, tickers, zone, adjusted, has_header)


def _after(text: str, line: str | None) -> Iterator[str]:
    """Lines of the text after the last header line."""
    lines = iter(io.StringIO(text))
    if line is not None:
        for each in lines:
            if each == line:
                break
    yield from lines


def _separator(lines: Sequence[str]) -> str:
    """Separator that splits most lines into equally many cells, at least two."""

    def agreement(separator: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=separator)]
        usual = max(widths, key=widths.count)
        return (widths.count(usual) if usual > 1 else 0, usual)

    # a comma may be a decimal sign, so that the others come first
    best = max("\t;|,", key=agreement)
    return best if agreement(best)[0] else ","


def _is_data(row: Sequence[str]) -> bool:
    numbers = sum(bool(_NUMBER.fullmatch(cell)) for cell in row)
    times = sum(bool(_TIME.fullmatch(cell)) for cell in row)
    empty = sum(cell.lower() in _NOTHING for cell in row)
    return numbers >= 4 or (times >= 1 and numbers + times + empty == len(row) > 1)


def _decimal_comma(rows: Sequence[Sequence[str]]) -> bool:
    return any(re.fullmatch(r"[+-]?\d+,\d+", cell) for row in rows for cell in row)


def _headerless(rows: Sequence[Sequence[str]]) -> HeaderlessLayout | None:
    """Known layout that fits the first lines, prices in order included."""
    return next((layout for layout in HEADERLESS if all(_fits(row, layout) for row in rows[:5])), None)


def _fits(row: Sequence[str], layout: HeaderlessLayout) -> bool:
    forms = {"E": _EPOCH, "D": _DATE, "C": _CLOCK, "S": _STAMP, "I": _TIME, "N": _NUMBER}
    if len(row) != len(layout.shape):
        return False
    if not all(forms[kind].fullmatch(cell) for kind, cell in zip(layout.shape, row, strict=True)):
        return False
    named = dict(zip(layout.names.split(), row, strict=True))
    open_, high, low, close = (
        float(named[name].replace(",", ".")) for name in ("open", "high", "low", "close")
    )
    return high >= max(open_, close) and low <= min(open_, close)


def _header(
    lines: list[list[str]], data: Sequence[str]
) -> tuple[list[str], list[str | None], list[list[str]]]:
    """Names and tickers of the columns, and the lines of the header proper, without titles above."""
    header = [line for line in lines if abs(len(line) - len(data)) <= 1] or lines[-1:]
    named = [number for number, line in enumerate(header) if {plain_name(cell) for cell in line} >= _PRICES]
    chosen = named[-1] if named else len(header) - 1
    names = list(header[chosen])
    tickers: list[str | None] = [None] * len(names)
    others = [line for number, line in enumerate(header) if number != chosen] if named else []
    for line in others:
        if line[0].lower() in ("ticker", "symbol", "") and len(line) == len(names):
            pairs = zip(line[1:], tickers[1:], strict=True)
            tickers = [None, *(cell or ticker for cell, ticker in pairs)]
    index_names = [line[0] for line in header[chosen + 1 :] if line and line[0] and not any(line[1:])]
    if others and (index_names or any(tickers)):
        names[0] = index_names[-1] if index_names else ""
    return names, tickers, header


def _zone_of(names: set[str]) -> str | None:
    return next((zone for required, zone in HEADER_ZONES.items() if required <= names), None)


def _repeated_headers(
    frame: pd.DataFrame, header: Sequence[Sequence[str]]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Rows that repeat a header line, as in files made of several downloads, shape (n_rows,)."""
    repeated = np.zeros(len(frame), dtype=np.bool_)
    for line in header:
        cells = [(number, cell) for number, cell in enumerate(line) if cell and number < frame.shape[1]]
        if not cells or not all(frame[number].dtype in (object, "string", "str") for number, _ in cells):
            continue
        equal = np.ones(len(frame), dtype=np.bool_)
        for number, cell in cells:
            equal &= (frame[number].astype("string").str.strip() == cell).fillna(False).to_numpy(np.bool_)
        repeated |= equal
    return repeated


def _as_numbers(frame: pd.DataFrame, decimal: str) -> pd.DataFrame:
    """Columns of text that hold only numbers, as numbers; columns of times stay text."""
    for number in frame.columns[1:]:
        column = frame[number]
        if pd.api.types.is_numeric_dtype(column):
            continue
        text = column.astype("string").str.strip()
        numbers = pd.to_numeric(text.str.replace(",", ".") if decimal == "," else text, errors="coerce")
        if bool((numbers.isna() == text.isna()).all()) and not text.str.match(r"0\d|\d{8}$|\d{12,}$").any():
            frame[number] = numbers.astype(np.float64)
    return frame


def table_of(frame: pd.DataFrame) -> Table:
    """Table of a frame; an index that is no plain numbering becomes columns."""
    tickers: list[str | None] = []
    names: list[str] = []
    has_index = not isinstance(frame.index, pd.RangeIndex)
    if has_index:
        names += [str(name or "") for name in frame.index.names]
        tickers += [None] * frame.index.nlevels
        index = [frame.index.get_level_values(level) for level in range(frame.index.nlevels)]
    for label in frame.columns:
        parts = [str(part) for part in label] if isinstance(label, tuple) else [str(label)]
        known = [part for part in parts if plain_name(part) in _PRICES | {"volume", "adj_close"}]
        name = known[0] if known else next((part for part in parts if part), "")
        names.append(name)
        tickers.append(next((part for part in parts if part and part != name), None))
    columns = [frame.iloc[:, number].reset_index(drop=True) for number in range(frame.shape[1])]
    if has_index:
        columns = [pd.Series(values.array) for values in index] + columns
    table = pd.concat(columns, axis=1) if columns else pd.DataFrame()
    table.columns = pd.Index(range(len(columns)))
    for number in table.columns:
        if isinstance(table[number].dtype, pd.PeriodDtype):
            table[number] = table[number].dt.to_timestamp()
    return Table(table, names, tickers)
