"""Bars: open, high, low, close and volume on a fixed grid, validated once and immutable."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.market.timeframes import Calendar, Timeframe, periods_per_year

FIELDS = ("open", "high", "low", "close", "volume")

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bars:
    """A validated series of one symbol; made by `validation.validate`, never by hand in product code.

    Every array has shape (n_bars,) and is read-only. Bars are in time order; the grid may have gaps.
    """

    symbol: str
    timeframe: Timeframe
    calendar: Calendar
    time: NDArray[np.int64]
    """Bar-open times, nanoseconds since 1970-01-01 UTC."""
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    """Traded quantity of the base asset; 0 in a bar without a trade."""

    def __post_init__(self) -> None:
        for name in ("time", *FIELDS):
            getattr(self, name).setflags(write=False)

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: slice) -> "Bars":
        """A contiguous part, sharing memory: `bars[:100]`."""
        if rows.step not in (None, 1):
            raise ValueError("bars are sliced contiguously: a step would change their timeframe")
        parts = {name: getattr(self, name)[rows] for name in ("time", *FIELDS)}
        return Bars(self.symbol, self.timeframe, self.calendar, **parts)

    @property
    def start(self) -> pd.Timestamp:
        return pd.Timestamp(int(self.time[0]), unit="ns", tz="UTC")

    @property
    def end(self) -> pd.Timestamp:
        """Open time of the last bar."""
        return pd.Timestamp(int(self.time[-1]), unit="ns", tz="UTC")

    @property
    def index(self) -> pd.DatetimeIndex:
        return pd.DatetimeIndex(pd.to_datetime(self.time, unit="ns", utc=True), name="timestamp")

    @property
    def periods_per_year(self) -> float:
        return periods_per_year(self.timeframe, self.calendar)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over symbol, timeframe, calendar and every value; the same on any machine."""
        digest = hashlib.sha256(f"bars-1|{self.symbol}|{self.timeframe}|{self.calendar}|{len(self)}".encode())
        digest.update(self.time.astype("<i8").tobytes())
        for name in FIELDS:
            # adding 0.0 turns -0.0 into 0.0: equal values, equal bytes
            digest.update((getattr(self, name) + 0.0).astype("<f8").tobytes())
        return digest.hexdigest()

    @cached_property
    def segments(self) -> NDArray[np.int64]:
        """Number of the unbroken stretch each bar belongs to, from 0, shape (n_bars,).

        A new stretch begins after every gap that is not a closing time of the calendar. Nothing that
        looks back (features) or ahead (labels) may reach from one stretch into another.
        """
        raise NotImplementedError

    def stretches(self) -> Iterator[slice]:
        """The rows of each unbroken stretch, in order."""
        edges = np.flatnonzero(np.diff(self.segments)) + 1
        bounds = [0, *edges.tolist(), len(self)] if len(self) else []
        for first, last in zip(bounds[:-1], bounds[1:], strict=True):
            yield slice(first, last)

    def last_days(self, days: int) -> "Bars":
        """The newest `days` x 24 h of bars."""
        first = np.searchsorted(self.time, self.time[-1] - days * 86_400_000_000_000, side="right")
        return self[int(first) :]

    def to_frame(self) -> pd.DataFrame:
        """Columns open, high, low, close, volume over a UTC `timestamp` index."""
        return pd.DataFrame({name: getattr(self, name) for name in FIELDS}, index=self.index)
