"""Own series beside the bars: values with the time each became known, joined as known.

A bar sees, at its close, the values known by then: of those the value of the newest event, and of that event
the newest revision. Later values and later revisions never reach the bar.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.errors import InvalidSeries, SeriesMissing
from clm_core.market.bars import Bars, Floats

PREFIX = "series."
"""Beginning of the name of the feature that is the value of a series: `series.funding`."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")

Times = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KnownSeries:
    """Values with event times and the times at which each became known, in the order of becoming known.

    Every array has shape (n_values,) and is read-only.
    """

    name: str
    time: Times
    """Times the values are about, nanoseconds since 1970-01-01 UTC."""
    known: Times
    """Times from which on the values were known, nanoseconds since 1970-01-01 UTC; not before `time`."""
    value: Floats
    max_age: int | None = None
    """Nanoseconds after `known` from which on a value is too old to be used; None for no limit."""

    def __post_init__(self) -> None:
        for array in (self.time, self.known, self.value):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.time)

    @classmethod
    def of(
        cls, name: str, time: Times, known: Times, value: Floats, max_age: int | None = None
    ) -> "KnownSeries":
        """A series from rows in any order.

        Raises:
            InvalidSeries: a value is not finite, became known before its time, or is there twice with another
                value.
        """
        if not NAME.fullmatch(name):
            raise InvalidSeries(
                f"{name!r} is no name of a series: use at most 40 lower-case letters, digits and _, "
                "beginning "
                "with a letter"
            )
        order = np.lexsort((time, known))
        series = cls(name, time[order], known[order], value[order] + 0.0, max_age)
        for problem in series._problems():
            raise InvalidSeries(f"the series {name} cannot be used: {problem}")
        return series._without_repetitions()

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over name, age limit and every value, hexadecimal; equal on all machines."""
        digest = hashlib.sha256(f"series-1|{self.name}|{self.max_age}|{len(self)}".encode())
        for times in (self.time, self.known):
            digest.update(times.astype("<i8").tobytes())
        digest.update(self.value.astype("<f8").tobytes())
        return digest.hexdigest()

    def at(self, moments: Times) -> Floats:
        """Values known at each moment, NaN where none is or the newest is too old, shape (n_moments,)."""
        if not len(self):
            return np.full(len(moments), np.nan)
        row = self._newest_event[np.searchsorted(self.known, moments, side="right") - 1]
        is_known = np.searchsorted(self.known, moments, side="right") > 0
        row = np.where(is_known, row, 0)
        if self.max_age is not None:
            is_known &= moments - self.known[row] <= self.max_age
        return np.where(is_known, self.value[row], np.nan)

    @cached_property
    def _newest_event(self) -> NDArray[np.int64]:
        """Row in force after each row became known: that of the newest event, shape (n_values,)."""
        is_newest = self.time >= np.maximum.accumulate(self.time)
        return np.maximum.accumulate(np.where(is_newest, np.arange(len(self)), 0))

    def _problems(self) -> Iterator[str]:
        wrong = np.flatnonzero(~np.isfinite(self.value))
        if len(wrong):
            yield f"the value of {_moment(self.time[wrong[0]])} is not finite"
        early = np.flatnonzero(self.known < self.time)
        if len(early):
            row = early[0]
            yield (
                f"the value of {_moment(self.time[row])} became known at {_moment(self.known[row])}, "
                "before its "
                "time: the time of a value is the time it is about, and a value is known afterwards"
            )
        same = (np.diff(self.time) == 0) & (np.diff(self.known) == 0)
        differing = np.flatnonzero(same & (np.diff(self.value) != 0))
        if len(differing):
            row = differing[0]
            yield (
                f"{_moment(self.time[row])} has two values, {self.value[row]:g} and "
                f"{self.value[row + 1]:g}, known "
                "at the same time: a revision needs the later time at which the new value became known"
            )

    def _without_repetitions(self) -> "KnownSeries":
        same = (np.diff(self.time, prepend=np.iinfo(np.int64).min) == 0) & (
            np.diff(self.known, prepend=np.iinfo(np.int64).min) == 0
        )
        return replace(self, time=self.time[~same], known=self.known[~same], value=self.value[~same])


def with_series(bars: Bars, series: Mapping[str, KnownSeries]) -> Bars:
    """The bars with a column of each series: the value known at the close of the bar."""
    if not series:
        return bars
    closes = bars.time + bars.timeframe.nanoseconds
    columns = {name: each.at(closes) for name, each in series.items()}
    return replace(bars, series={**bars.series, **columns})


def require_series(bars: Bars, name: str) -> Floats:
    """Values of a series on the bars.

    Raises:
        SeriesMissing: the bars come without the series.
    """
    if name not in bars.series:
        raise SeriesMissing(
            f"the model uses the series {name}, and the bars come without it: pass a table of its "
            "values with the "
            f'columns time, known and value, positions(bars, series={{"{name}": table}}), or bars from '
            f'MarketData.with_series(bars, ["{name}"]); predict() takes a column "{PREFIX}{name}" '
            "with the value "
            "known at the close of each bar"
        )
    return bars.series[name]


def _moment(nanoseconds: np.int64) -> str:
    return f"{np.datetime64(int(nanoseconds), 'ns').astype('datetime64[s]')} UTC"
