"""Validation of tables: bars of a table after a check of every rule of `bar_rules`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from clm_core.domain.errors import Finding, InvalidBars
from clm_core.market.bar_rules import checked_columns
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe


@dataclass(frozen=True)
class Examined:
    """Bars that passed, with everything that was overruled or corrected on the way."""

    bars: Bars
    allowed: Mapping[str, int]
    """Overruled rules that the bars break, each with the number of bars."""
    adjusted: Mapping[str, int]
    """Corrections, each with the number of bars: `rounded`, `repeated-bars`."""


def validate(
    frame: pd.DataFrame,
    symbol: str,
    timeframe: Timeframe,
    calendar: Calendar,
    *,
    now: datetime,
    origin: str,
    drop_open_bar: bool = False,
    allow: frozenset[str] = frozenset(),
) -> Bars:
    """The bars of `examine`, one for each row, without the record of what was overruled or corrected.

    Raises:
        InvalidBars: as `examine`; also for a bar that repeats an earlier bar, for callers keep the rows.
    """
    options: dict[str, Any] = {"now": now, "origin": origin, "drop_open_bar": drop_open_bar, "allow": allow}
    examined = examine(frame, symbol, timeframe, calendar, **options)
    if repeated := examined.adjusted.get("repeated-bars"):
        message = "the time was there before; keep one bar of each"
        raise InvalidBars(origin, [Finding("duplicate-time", (), repeated, message)])
    return examined.bars


def examine(
    frame: pd.DataFrame,
    symbol: str,
    timeframe: Timeframe,
    calendar: Calendar,
    *,
    now: datetime,
    origin: str,
    drop_open_bar: bool = False,
    allow: frozenset[str] = frozenset(),
) -> Examined:
    """Bars of a table, or an error with all problems of the table.

    Args:
        See `bar_rules.checked_columns`.

    Raises:
        InvalidBars: at least one rule is broken; the error carries all findings.
        InvalidSymbol: the symbol cannot name a series.
        DataError: a rule in `allow` cannot be overruled.
    """
    options: dict[str, Any] = {"now": now, "origin": origin, "drop_open_bar": drop_open_bar, "allow": allow}
    checked = checked_columns(frame, symbol, timeframe, calendar, **options)
    fields: dict[str, Any] = dict(checked.fields)
    bars = Bars(checked.symbol, timeframe, calendar, checked.time, **fields)
    return Examined(bars, checked.allowed, checked.adjusted)
