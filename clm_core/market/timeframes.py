"""Bar lengths and trading calendars, with the closing times of each calendar."""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

SECONDS = {"m": 60, "h": 3600, "d": 86400}

_NANOSECONDS = 1_000_000_000
_WEEK = 7 * 86400 * _NANOSECONDS
# 1970-01-01 was a Thursday, so the first Friday evening is 45 hours after the epoch.
_CLOSES = 45 * 3600 * _NANOSECONDS
_CLOSED_FOR = 49 * 3600 * _NANOSECONDS


class Timeframe(StrEnum):
    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"

    @property
    def seconds(self) -> int:
        return int(self.value[:-1]) * SECONDS[self.value[-1]]

    @property
    def nanoseconds(self) -> int:
        return self.seconds * _NANOSECONDS


class Calendar(StrEnum):
    ALWAYS = "24x7"
    """Crypto: every bar of the grid is expected; a missing bar is an outage."""
    WEEKDAYS = "24x5"
    """Foreign exchange: bars that open from Friday 21:00 up to, not including, Sunday 22:00 UTC are not
    expected. New York closes at 17:00 local time, which is 21:00 UTC in summer and 22:00 in winter: in the
    bundled EURUSD year the last bar of a week opens at 20:00 or 21:00 on Friday and the first of the next
    at 21:00 or 22:00 on Sunday, always with the bars in between missing."""


def periods_per_year(timeframe: Timeframe, calendar: Calendar) -> float:
    """Bars in a year: 8760 for hourly crypto, 6240 (52 weeks of 5 days) for hourly foreign exchange."""
    days = 365.0 if calendar is Calendar.ALWAYS else 260.0
    return days * 86400 / timeframe.seconds


def closing_slots(
    after: NDArray[np.int64], before: NDArray[np.int64], timeframe: Timeframe, calendar: Calendar
) -> NDArray[np.int64]:
    """Number of grid slots in closing time strictly between two bar-open times, shape (n,).

    Args:
        after, before: earlier and later open times, nanoseconds since 1970-01-01 UTC, shape (n,).
    """
    if calendar is Calendar.ALWAYS:
        return np.zeros(len(after), dtype=np.int64)
    step = timeframe.nanoseconds
    return _weekend_slots_before(before, step) - _weekend_slots_before(after + step, step)


def in_weekend(time: NDArray[np.int64], timeframe: Timeframe) -> NDArray[np.bool_]:
    """True for bars entirely between the later close, Friday 22:00 UTC, and the earlier opening, Sunday 21:00
    UTC, shape (n,)."""
    since_close = (time - _CLOSES) % _WEEK
    hour = 3600 * _NANOSECONDS
    return np.asarray((since_close >= hour) & (since_close + timeframe.nanoseconds <= _CLOSED_FOR - hour))


def _weekend_slots_before(time: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Number of grid slots in closing time that open before `time`, from the first weekend of 1970 on."""
    week, since_close = np.divmod(time - _CLOSES, _WEEK)
    first = -(-_CLOSES // step)
    per_week = -(-(_CLOSES + _CLOSED_FOR) // step) - first
    this_week = -(-(_CLOSES + np.minimum(since_close, _CLOSED_FOR)) // step) - first
    return np.asarray(week * per_week + this_week)
