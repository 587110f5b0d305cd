"""Canonical names of markets and bar lengths, from any usual spelling.

A canonical symbol names folders and is part of model ids; the table of spellings is in
docs/reference/symbols.md.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from clm_core.domain.errors import InvalidSymbol

TIMEFRAMES = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "1w")
"""Canonical names of the bar lengths, shortest first."""

MAX_SYMBOL = 32
"""Maximum length of a canonical symbol."""

_SYMBOL = re.compile(r"[A-Z0-9](?:[A-Z0-9_-]|\.(?=[A-Z0-9])){0,31}")
_UNIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "m": ("m", "min", "mins", "minute", "minutes", "t"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "d": ("d", "day", "days"),
    "w": ("w", "wk", "wks", "week", "weeks"),
}
_UNITS = {name: unit for unit, names in _UNIT_NAMES.items() for name in names}
_MINUTES = {"m": 1, "h": 60, "d": 1440, "w": 10_080}
_WORDS = {"hourly": "1h", "daily": "1d", "weekly": "1w", "d": "1d", "w": "1w"}


def _pair(base: str, quote: str) -> str:
    return base + quote


def _contract(base: str, quote: str, settled_in: str, expiry: str) -> str:
    """Perpetual or dated future in ccxt's notation `BASE/QUOTE:SETTLE[-YYMMDD]`."""
    kind = f"F{expiry}" if expiry else "P"
    return f"{base}{quote}.{kind}" + ("" if settled_in == quote else f"-{settled_in}")


_FORMS = (
    (re.compile(r"([A-Z0-9]+)/([A-Z0-9]+)"), _pair),
    (re.compile(r"([A-Z0-9]+)/([A-Z0-9]+):([A-Z0-9]+)(?:-(\d{6}))?"), _contract),
    (re.compile(r"\^([A-Z0-9.-]+)"), lambda index: f"{index}.IDX"),
    (re.compile(r"([A-Z0-9.-]+)=F"), lambda future: f"{future}.FUT"),
    (re.compile(r"([A-Z0-9.-]+)=X"), lambda rate: f"{rate}.FX"),
)
"""Spellings of data vendors, each with the canonical name made from the parts."""


def normalise_symbol(symbol: str) -> str:
    """Canonical symbol: `BTC/USDT` and `btcusdt` become BTCUSDT, `BTC/USDT:USDT` becomes BTCUSDT.P.

    Raises:
        InvalidSymbol: the symbol has letters other than ASCII, or could not safely name a folder.
    """
    spelling = native_symbol(symbol)
    for form, canonical in _FORMS:
        if match := form.fullmatch(spelling):
            spelling = canonical(*(part or "" for part in match.groups()))
            break
    if not _SYMBOL.fullmatch(spelling):
        raise InvalidSymbol(
            f"{symbol!r} cannot be a symbol: use at most {MAX_SYMBOL} letters, digits, '-', '_' and single "
            "dots, e.g. BTCUSDT or BTC/USDT, BTC/USDT:USDT, BRK.B, ^GSPC, ES=F"
        )
    return spelling


def native_symbol(symbol: str) -> str:
    """A vendor's own spelling in upper case: `BTC/USDT:USDT`, `^GSPC`.

    Raises:
        InvalidSymbol: the symbol has letters other than ASCII, which have no unambiguous upper case.
    """
    if not symbol.isascii():
        raise InvalidSymbol(
            f"{symbol!r} cannot be a symbol: use ASCII letters and digits, e.g. BTCUSDT or BTC/USDT"
        )
    return symbol.strip().upper()


def same_market(one: str, other: str) -> bool:
    """True if two spellings can name one market: equal, or one of them the canonical name of both."""
    canonical = normalise_symbol(one)
    if canonical != normalise_symbol(other):
        return False
    spellings = {native_symbol(one), native_symbol(other)}
    return len(spellings) == 1 or canonical in spellings


def _is_symbol(symbol: str) -> str:
    try:
        normalise_symbol(symbol)
    except InvalidSymbol as error:
        raise ValueError(str(error)) from error
    return symbol


def normalise_timeframe(text: str) -> str | None:
    """Canonical bar length of a spelling, or None: `1H`, `60m`, `60min` and MetaTrader's `H1` become 1h.

    `1M` is a month in the notation of exchanges, and therefore no bar length.
    """
    spelling = text.strip()
    if spelling in TIMEFRAMES:
        return spelling
    if re.fullmatch(r"\d*M", spelling):
        return None
    spelling = re.sub(r"^([MHDW])(\d+)$", r"\2\1", spelling).lower()
    spelling = _WORDS.get(spelling, spelling)
    match = re.fullmatch(r"(\d{1,5})\s*([a-z]+)", spelling)
    if match is None or match[2] not in _UNITS:
        return None
    minutes = int(match[1]) * _MINUTES[_UNITS[match[2]]]
    return next((name for name in TIMEFRAMES if minutes == minutes_of(name)), None)


def minutes_of(timeframe: str) -> int:
    """Length in minutes of a canonical bar length."""
    return int(timeframe[:-1]) * _MINUTES[timeframe[-1]]


DEFAULT_SPAN_DAYS = 1825
DEFAULT_SPAN_BARS = 43_800
MIN_DEFAULT_SPAN_DAYS = 365
LONG_BARS_SPAN = 8760
MAX_SPAN_DAYS = 36_500


def default_span_days(timeframe: str) -> int:
    """Days of bars for a training unless requested otherwise, or what the series has: five years.

    Bars longer than an hour: the days of 8,760 bars, where these are more, at most 36,500. Bars shorter than
    an hour: the days of 43,800 bars (five years of hours), at least 365, so that a training ends within
    minutes.
    """
    minutes = minutes_of(timeframe)
    if minutes < 60:
        return max(MIN_DEFAULT_SPAN_DAYS, DEFAULT_SPAN_BARS * minutes // 1440)
    return min(max(DEFAULT_SPAN_DAYS, LONG_BARS_SPAN * minutes // 1440), MAX_SPAN_DAYS)


def span_by_timeframe(data: Mapping[str, Any]) -> int:
    """Default of a request's span from the valid fields; an unknown bar length is refused elsewhere."""
    timeframe = data.get("timeframe")
    return default_span_days(timeframe) if timeframe in TIMEFRAMES else DEFAULT_SPAN_DAYS


def canonical_timeframe(text: str) -> str:
    """Canonical spelling of a bar length; an unknown text stays as it is."""
    return normalise_timeframe(text) or text


NOT_EMPTY: dict[str, Any] = {"minLength": 1}
"""Part of the JSON schema of a symbol, which the rules of spellings refuse when it is empty."""

SymbolName = Annotated[str, AfterValidator(_is_symbol)]
"""Symbol in any spelling that has a canonical name, kept as spelled."""

TimeframeName = Annotated[str, AfterValidator(canonical_timeframe)]
"""Bar length in any known spelling, kept in the canonical spelling; the market data refuses an unknown
one."""
