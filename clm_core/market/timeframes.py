"""Bar lengths and trading calendars: what a step is, and which missing bars are closing times."""

from enum import StrEnum

SECONDS = {"m": 60, "h": 3600, "d": 86400}


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
        return self.seconds * 1_000_000_000


class Calendar(StrEnum):
    ALWAYS = "24x7"
    """Crypto: every bar of the grid should exist; one that doesn't is an outage."""
    WEEKDAYS = "24x5"
    """Foreign exchange: bars between Friday evening and Sunday evening (UTC) are not expected."""


def periods_per_year(timeframe: Timeframe, calendar: Calendar) -> float:
    """Bars in a year: 8760 for hourly crypto, 6240 (52 weeks of 5 days) for hourly foreign exchange."""
    days = 365.0 if calendar is Calendar.ALWAYS else 260.0
    return days * 86400 / timeframe.seconds
