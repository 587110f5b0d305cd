"""Panel: bars of several symbols with the same bar length, on a common axis of time."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.domain.errors import DataError, FeatureMismatch
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe

Times = NDArray[np.int64]
MIN_MEMBERS = 2
MAX_SHARE = 1.25
"""Maximum number of rows of a fit, in multiples of the bars of the longest member: neighbouring rows of a
symbol have almost the same features and label, so little is lost, and the fit of ten symbols takes little
longer than the fit of a single symbol."""
FEW_ROWS = 10_000
"""Number of rows up to which every row is used: with so few every row counts, and the fit is quick."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Bars of the members of a pool. Members may begin, pause and end at different times."""

    name: str
    """Name of the pool, as a canonical symbol."""
    members: tuple[Bars, ...]
    """Bars of each symbol, at least one member, in the order of the pool."""

    def __post_init__(self) -> None:
        """
        Raises:
            DataError: two members have the same symbol, or other bar lengths, calendars or gap rules.
        """
        if not self.members:
            raise DataError(f"the pool {self.name} has no members: name at least {MIN_MEMBERS} symbols")
        if len(set(self.symbols)) < len(self.members):
            raise DataError(f"the pool {self.name} names a symbol twice: {', '.join(self.symbols)}")
        for name in ("timeframe", "calendar", "gap_rules"):
            values = {str(getattr(member, name)): member.symbol for member in self.members}
            if len(values) > 1:
                differing = ", ".join(f"{symbol} has {value}" for value, symbol in values.items())
                raise DataError(
                    f"members of a pool share the {name.replace('_', ' ')}, and those of {self.name} do not "
                    f"({differing}): pool the symbols of each {name.replace('_', ' ')} apart"
                )

    def __iter__(self) -> Iterator[Bars]:
        return iter(self.members)

    def __len__(self) -> int:
        """Number of members."""
        return len(self.members)

    def __getitem__(self, symbol: str) -> Bars:
        """Bars of a member.

        Raises:
            FeatureMismatch: the symbol is no member; the message names the members.
        """
        for member in self.members:
            if member.symbol == symbol:
                return member
        raise not_a_member(self.name, self.symbols, symbol)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(member.symbol for member in self.members)

    @property
    def timeframe(self) -> Timeframe:
        return self.members[0].timeframe

    @property
    def calendar(self) -> Calendar:
        return self.members[0].calendar

    @property
    def gap_rules(self) -> int:
        return self.members[0].gap_rules

    @cached_property
    def time(self) -> Times:
        """Open times at which any member has a bar, ascending, nanoseconds since 1970-01-01 UTC, shape
        (n_times,)."""
        return union(member.time for member in self.members)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over the name and the content hashes of the members in the order of the pool,
        hexadecimal."""
        return hash_of(self.name, [member.content_hash for member in self.members])

    @property
    def rows(self) -> int:
        """Number of bars of all members."""
        return sum(len(member) for member in self.members)

    def between(self, first: int, stop: int) -> "Panel | None":
        """Bars with an open time from `first` to before `stop`, nanoseconds since 1970-01-01 UTC; members
        without such a bar are left out. None if no bar is left."""
        cut = (member[_rows(member.time, first, stop)] for member in self.members)
        members = tuple(member for member in cut if len(member))
        return replace(self, members=members) if members else None

    def closed_by(self, moment: datetime) -> "Panel | None":
        """Bars closed by a moment; members without such a bar are left out. None if no bar is left."""
        return self.between(
            np.iinfo(np.int64).min, pd.Timestamp(moment).value - self.timeframe.nanoseconds + 1
        )

    def index_bars(self) -> Bars:
        """Bars of the pool on the common axis: an index of the members' prices, without a volume.

        The close compounds the mean of the members' returns, from 100; a member without a bar has a return of
        0. The index serves as the axis of time of the pool's results, and is not traded.
        """
        returns = np.zeros(len(self.time))
        for member in self.members:
            rows = np.searchsorted(self.time, member.time)
            returns[rows[1:]] += member.close[1:] / member.close[:-1] - 1.0
        close = np.asarray(100.0 * np.cumprod(1.0 + returns / len(self.members)), dtype=np.float64)
        opened = np.concatenate([[100.0], close[:-1]])
        return Bars(
            self.name,
            self.timeframe,
            self.calendar,
            self.time,
            opened,
            np.maximum(opened, close),
            np.minimum(opened, close),
            close,
            np.zeros(len(close)),
            gap_rules=self.gap_rules,
        )

    def under(self, gap_rules: int) -> "Panel":
        """The same bars under other rules of closures and outages; shares memory."""
        return replace(self, members=tuple(member.under(gap_rules) for member in self.members))


def thinned(panel: Panel, number: int) -> NDArray[np.bool_]:
    """True for the bars of a member used by a fit, shape (n_bars,): every n-th bar of every member.

    n is the smallest number with at most `MAX_SHARE` times as many rows as the longest member has bars, or
    `FEW_ROWS` where more. Bars are counted on the clock, so later bars change no choice; members take turns,
    so the moments are covered evenly.

    Args:
        number: place of the member in the pool.
    """
    longest = max(len(member) for member in panel)
    every = math.ceil(panel.rows / max(MAX_SHARE * longest, FEW_ROWS))
    bar = panel.members[number].time // panel.timeframe.nanoseconds
    return np.asarray((bar + number) % every == 0)


def union(times: Iterator[Times]) -> Times:
    """Sorted distinct times of several series, shape (n_times,), read-only."""
    axis = np.unique(np.concatenate(list(times)))
    axis.setflags(write=False)
    return axis


def hash_of(name: str, hashes: Sequence[str]) -> str:
    """SHA-256 of a pool from the content hashes of the members' series, hexadecimal."""
    return hashlib.sha256("|".join(["panel-1", name, *hashes]).encode()).hexdigest()


def not_a_member(pool: str, symbols: Sequence[str], symbol: str) -> FeatureMismatch:
    return FeatureMismatch(
        f"the pool {pool} has no member {symbol}: give bars of one of {', '.join(symbols)}, or retrain with "
        f"{symbol} in a pool of another name"
    )


def _rows(time: Times, first: int, stop: int) -> slice:
    begin, end = np.searchsorted(time, [first, stop])
    return slice(int(begin), int(end))


def members_of(bars: Bars | Panel) -> tuple[Bars, ...]:
    """Bars of each member of a pool; of one market, its bars alone."""
    return bars.members if isinstance(bars, Panel) else (bars,)
