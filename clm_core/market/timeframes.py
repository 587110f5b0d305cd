"""Bar lengths and trading calendars by name, with the weekend window of foreign exchange."""

import re
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

from clm_core.domain.errors import UnknownCalendar
from clm_core.domain.spellings import minutes_of, normalise_timeframe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HOURS_A_WEEK = 168
LEARNT = "weekly:"
"""Prefix of learnt calendars; the required hours of the week follow, in hexadecimal."""

_NANOSECONDS = 1_000_000_000
_WEEK = 7 * 86400 * _NANOSECONDS
# 1970-01-01 was a Thursday, so the first Friday evening is 45 hours after the epoch.
_CLOSES = 45 * 3600 * _NANOSECONDS
_CLOSED_FOR = 49 * 3600 * _NANOSECONDS


class Timeframe(StrEnum):
    """Length of a bar; `Timeframe("60m")` and other spellings are understood, see `domain.spellings`."""

    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H2 = "2h"
    H4 = "4h"
    H6 = "6h"
    H8 = "8h"
    H12 = "12h"
    D1 = "1d"
    W1 = "1w"

    @classmethod
    def _missing_(cls, value: object) -> "Timeframe | None":
        name = normalise_timeframe(value) if isinstance(value, str) else None
        return None if name is None else cls(name)

    @property
    def seconds(self) -> int:
        return minutes_of(self.value) * 60

    @property
    def grid_start(self) -> int:
        """Open time of a bar, nanoseconds since 1970-01-01 UTC; all others are whole steps away.

        Weeks open on Monday, as on the exchanges; 1970-01-05 was one.
        """
        return 4 * 86400 * _NANOSECONDS if self is Timeframe.W1 else 0

    @property
    def nanoseconds(self) -> int:
        return self.seconds * _NANOSECONDS


class Calendar(str):
    """Name of a trading calendar, valid by construction; equal to its text.

    - `24x7`, crypto: every bar of the grid is expected.
    - `24x5`, foreign exchange and metals: closed at weekends, in a daily break and on three holidays. New
      York closes at 17:00 local time, which is 21:00 UTC in summer and 22:00 in winter: in the bundled EURUSD
      year the last bar of a week opens at 20:00 or 21:00 on Friday and the first of the next at 21:00 or
      22:00 on Sunday, always with the bars in between missing.
    - the names of exchange_calendars (`XNYS`, `CMES`); an alias (`NYSE`) becomes the calendar's own name.
    - `weekly:<mask>`, learnt from a series: 42 hexadecimal digits, one bit for each hour of the week.

    Raises:
        UnknownCalendar: the text names no calendar; the message lists similar names.
    """

    __slots__ = ()
    ALWAYS: ClassVar["Calendar"]
    WEEKDAYS: ClassVar["Calendar"]

    def __new__(cls, name: str) -> Self:
        return super().__new__(cls, name if isinstance(name, Calendar) else _canonical(str(name)))

    @property
    def value(self) -> str:
        return str(self)

    @property
    def is_learnt(self) -> bool:
        return self.startswith(LEARNT)

    @property
    def is_exchange(self) -> bool:
        """True for a calendar of exchange_calendars."""
        return not self.is_learnt and self not in ("24x7", "24x5")

    def __str__(self) -> str:
        return str.__str__(self)

    def __repr__(self) -> str:
        return f"Calendar({str(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def parse(text: str) -> "Calendar":
            try:
                return cls(text)
            except UnknownCalendar as error:
                raise ValueError(str(error)) from error

        return core_schema.no_info_after_validator_function(
            parse, core_schema.str_schema(), serialization=core_schema.to_string_ser_schema()
        )


@cache
def exchange_names() -> dict[str, str]:
    """Names of exchange_calendars, aliases included, with the name of the calendar itself."""
    from exchange_calendars import get_calendar_names, resolve_alias

    own = {"24/7": "24x7", "24/5": "24x5"}
    return {name: own.get(name, resolve_alias(name)) for name in get_calendar_names()}


def _canonical(name: str) -> str:
    if name in ("24x7", "24x5"):
        return name
    if re.fullmatch(rf"{LEARNT}[0-9a-f]{{{HOURS_A_WEEK // 4}}}", name):
        return name
    known = exchange_names()
    if name in known:
        return known[name]
    import difflib

    folded = {each.upper(): each for each in ("24x7", "24x5", *known)}
    similar = difflib.get_close_matches(name.upper(), folded, n=5, cutoff=0.5)
    hint = f"similar: {', '.join(folded[each] for each in similar)}; " if similar else ""
    raise UnknownCalendar(
        f"no calendar is called {name!r}: {hint}24x7, 24x5, or the name of an exchange "
        "(`clm data calendars` lists all)"
    )


Calendar.ALWAYS = Calendar("24x7")
Calendar.WEEKDAYS = Calendar("24x5")


def closing_slots(
    after: "NDArray[np.int64]", before: "NDArray[np.int64]", timeframe: Timeframe, calendar: Calendar
) -> "NDArray[np.int64]":
    """Number of grid slots in the weekend window strictly between two bar-open times, shape (n,); 0 for
    calendars without the window.

    Args:
        after, before: earlier and later open times, nanoseconds since 1970-01-01 UTC, shape (n,).
    """
    if calendar != Calendar.WEEKDAYS:
        import numpy as np

        return np.zeros(len(after), dtype=np.int64)
    step = timeframe.nanoseconds
    return _weekend_slots_before(before, step) - _weekend_slots_before(after + step, step)


def weekend_slots(time: "NDArray[np.int64]") -> "NDArray[np.bool_]":
    """True for bar-open times from Friday 21:00 up to, not including, Sunday 22:00 UTC, shape (n,)."""
    import numpy as np

    return np.asarray((time - _CLOSES) % _WEEK < _CLOSED_FOR)


def in_weekend(time: "NDArray[np.int64]", timeframe: Timeframe) -> "NDArray[np.bool_]":
    """True for bars entirely between the later close, Friday 22:00 UTC, and the earlier opening, Sunday 21:00
    UTC, shape (n,)."""
    since_close = (time - _CLOSES) % _WEEK
    hour = 3600 * _NANOSECONDS
    import numpy as np

    return np.asarray((since_close >= hour) & (since_close + timeframe.nanoseconds <= _CLOSED_FOR - hour))


def _weekend_slots_before(time: "NDArray[np.int64]", step: int) -> "NDArray[np.int64]":
    """Number of grid slots in the weekend window that open before `time`, from the first weekend of 1970
    on."""
    import numpy as np

    week, since_close = np.divmod(time - _CLOSES, _WEEK)
    first = -(-_CLOSES // step)
    per_week = -(-(_CLOSES + _CLOSED_FOR) // step) - first
    this_week = -(-(_CLOSES + np.minimum(since_close, _CLOSED_FOR)) // step) - first
    return np.asarray(week * per_week + this_week)
