"""Candles of a caller's own, in a pandas table, under the rules of an import and in the words of Python."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from clm_core.domain.errors import DataError, Finding, InvalidBars
from clm_core.domain.spellings import TIMEFRAMES, normalise_symbol, normalise_timeframe
from clm_core.market.bar_rules import OVERRULABLE, Times, checked_columns
from clm_core.market.columns import Floats
from clm_core.market.reading import Layout, read_frame
from clm_core.market.timeframes import Calendar, Timeframe

ORIGIN = "the table of candles"
NOT_HERE = frozenset({"ambiguous-time", "other-symbol"})
"""Rules that cannot be overruled here: candles of another market or hour are no candles of the market."""
IN_PYTHON: Mapping[str, str] = {
    "empty": "there is no candle in the table",
    "newest-first": "the newest candle comes first: pass frame[::-1]",
    "open-bar": "the bar is still open and will change: pass drop_open_bar=True to leave it out",
    "other-symbol": "the table names another market: pass its candles alone, and its symbol",
    "ambiguous-time": "the local time exists twice, where the clocks are put back: convert the times to UTC",
    "unreadable-time": "the time is missing, or neither ISO 8601 nor a count of s, ms, us or ns since 1970: "
    "convert it by pandas.to_datetime",
    "overlapping-bars": "the bar opens before the one before has closed: pass the timeframe of the candles",
    "off-grid": "the time is no multiple of the timeframe: give the open time of each bar, not the close",
    "wrong-time-zone": "the bars open off the UTC grid: the times are in another zone, pass it as timezone=",
    "closed-market": "the market is closed then: pass the zone of the times as timezone=, or its calendar",
    "ambiguous-columns": "two columns could be the same one of time, open, high, low, close and volume: "
    'name it, as columns={"volume": "NAME"}',
}
"""Messages of rules whose remedy in an import is an option of a command."""
_OPTIONS = (
    (re.compile(r"--(timezone|timeframe|calendar) (\S+?)(?=[,:;)]|$| )"), r'\1="\2"'),
    (re.compile(r"--column (\w+)=(\w+)"), r'columns={"\1": "\2"}'),
    (re.compile(r"--(time|volume)-column NAME"), r'columns={"\1": "NAME"}'),
    (re.compile(r"--no-volume stores 0"), "no_volume=True takes 0"),
    (re.compile(r"--timezone"), "timezone="),
    (re.compile(r"--allow (\S+)"), r'allow=["\1"]'),
)


@dataclass(frozen=True)
class CandleOptions:
    """Meaning of an ambiguous table; see `Bars.from_frame`."""

    timezone: str | None
    columns: Mapping[str, str]
    no_volume: bool
    drop_open_bar: bool
    allow: frozenset[str]


@dataclass(frozen=True)
class Candles:
    """Columns of candles after a check of every rule."""

    symbol: str
    timeframe: Timeframe
    calendar: Calendar
    time: Times
    fields: Mapping[str, Floats]


def read_candles(
    frame: pd.DataFrame,
    symbol: str,
    timeframe: str,
    calendar: str,
    now: datetime | None,
    options: CandleOptions,
) -> Candles:
    """Columns of a table of candles; see `Bars.from_frame`.

    Args:
        now: present moment, with a time zone; None for the clock of this machine.

    Raises:
        InvalidBars: a rule is broken; the error carries all findings.
        DataError: an argument does not fit.
    """
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            f"candles come as a pandas DataFrame with a row a candle, not as {type(frame).__name__}"
        )
    length = normalise_timeframe(timeframe)
    if length is None:
        raise DataError(f"there is no timeframe {timeframe!r}; use one of {', '.join(TIMEFRAMES)}")
    if refused := sorted(options.allow & NOT_HERE):
        raise DataError(f"{', '.join(refused)} cannot be overruled in a table: {IN_PYTHON[refused[0]]}")
    if now is not None and now.tzinfo is None:
        raise DataError("now has no time zone: pass datetime.now(UTC)")
    normalise_symbol(symbol)
    trading_times = Calendar(calendar)
    layout = Layout(timezone=options.timezone, columns=options.columns, no_volume=options.no_volume)
    try:
        read = read_frame(ORIGIN, frame, symbol, layout, Timeframe(length))
        if read.findings:
            raise InvalidBars(ORIGIN, read.findings)
        checked = checked_columns(
            read.frame,
            symbol,
            Timeframe(length),
            trading_times,
            now=now or datetime.now(UTC),
            origin=ORIGIN,
            drop_open_bar=options.drop_open_bar,
            allow=options.allow,
        )
    except InvalidBars as refusal:
        raise InvalidBars(ORIGIN, [_in_python(finding) for finding in refusal.findings]) from refusal
    return Candles(checked.symbol, Timeframe(length), trading_times, checked.time, checked.fields)


def _in_python(finding: Finding) -> Finding:
    """The finding without options of commands."""
    text, first, example = finding.message.partition(". First: ")
    text = IN_PYTHON.get(finding.rule, text.partition(". Meant so:")[0])
    for option, keyword in _OPTIONS:
        text = option.sub(keyword, text)
    if finding.rule in OVERRULABLE and finding.rule not in NOT_HERE:
        text += f'. Meant so: allow=["{finding.rule}"]'
    return Finding(finding.rule, finding.rows, finding.count, f"{text}{first}{example}")
