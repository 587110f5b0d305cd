"""Bars: open, high, low, close and volume on a fixed time grid, validated once and immutable."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.market import columns
from clm_core.market.calendars import missing_after, periods_per_year
from clm_core.market.newest_bars import GAP_RULES, missing_until
from clm_core.market.own_candles import CandleOptions, read_candles
from clm_core.market.timeframes import Calendar, Timeframe

FIELDS = columns.FIELDS

BRIDGED_BARS = 5
"""Number of missing bars up to which an outage is carried through: features, labels and positions continue
with the next bar as after a closure."""

Floats = columns.Floats


@dataclass(frozen=True)
class Gap:
    """An outage: bars missing between two neighbours outside the closing times of the calendar."""

    after: pd.Timestamp
    """Open time of the last bar before the outage."""
    before: pd.Timestamp
    """Open time of the first bar after the outage."""
    missing: int
    """Number of missing bars, closing times excluded."""


def moment_of(time: np.int64) -> pd.Timestamp:
    """Moment of a time in nanoseconds since 1970-01-01 UTC."""
    return pd.Timestamp(int(time), unit="ns", tz="UTC")


@dataclass(frozen=True, eq=False)
class Bars:
    """A validated series of one symbol, in product code always created by `validation.validate` or
    `from_frame`.

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
    """Traded quantity of the base asset; 0 for a bar without a trade."""
    gap_rules: int = GAP_RULES
    """Rules of closures and outages; not part of the content hash."""
    series: Mapping[str, Floats] = field(default_factory=dict)
    """Own series by name: the value known at the close of each bar, shape (n_bars,), NaN where none is."""
    regime: NDArray[np.int8] | None = None
    """Regime known at the close of each bar (`regimes.with_regimes`), shape (n_bars,), for trainings that
    weigh regimes; None for all others."""
    regime_fits: Floats | None = None
    """Fits of the regimes up to the close of the last bar, a row each in time order
    (`regimes.RegimeFit.row`), shape (n_fits, n_numbers), where the bars come with regimes."""

    def __post_init__(self) -> None:
        for name in ("time", *FIELDS):
            getattr(self, name).setflags(write=False)
        for name, values in self.series.items():
            values.setflags(write=False)
            if values.shape != self.time.shape:
                raise ValueError(f"the series {name} has {len(values)} values for {len(self)} bars")
        if self.regime is not None:
            self.regime.setflags(write=False)
            if self.regime.shape != self.time.shape:
                raise ValueError(f"there are {len(self.regime)} regimes for {len(self)} bars")
        if self.regime_fits is not None:
            self.regime_fits.setflags(write=False)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        symbol: str,
        timeframe: str,
        calendar: str,
        now: datetime | None = None,
        timezone: str | None = None,
        columns: Mapping[str, str] | None = None,
        no_volume: bool = False,
        drop_open_bar: bool = False,
        allow: Collection[str] = (),
    ) -> "Bars":
        """Bars of a table of one's own candles: a row a candle, oldest first.

        Args:
            frame: open, high, low, close, volume in any usual spelling (`Open`, `o`, `Volume`), and the open
                times as a column (`time`, `timestamp`, `open_time`, ...) or as the index: times, ISO 8601, or
                a count of s, ms, us or ns since 1970, which is in UTC. Other columns are ignored.
            symbol: market in any spelling: BTC/USDT is BTCUSDT.
            timeframe: length of a bar: 1m, 15m, 1h, 4h, 1d, 1w.
            calendar: trading times: 24x7, 24x5 or a name of `clm data calendars`.
            now: present moment, with a time zone; by default the clock of this machine. A bar still open at
                that moment is refused.
            timezone: zone of times without a zone, such as UTC or Europe/Athens.
            columns: columns with other names, as {"time": "ts", "volume": "qty"}.
            no_volume: True for a market without volume: every bar gets 0.
            drop_open_bar: True leaves out a last bar that is still open.
            allow: names of rules that the bars may break, as in a refusal.

        Raises:
            InvalidBars: the table breaks a rule; the error names all rules, and the rows.
            InvalidSymbol: the symbol cannot name a series.
            UnknownCalendar: no trading calendar has the name.
            DataError: the timeframe is unknown, or another argument does not fit.
        """
        options = CandleOptions(timezone, columns or {}, no_volume, drop_open_bar, frozenset(allow))
        candles = read_candles(frame, symbol, timeframe, calendar, now, options)
        fields: dict[str, Any] = dict(candles.fields)
        return cls(candles.symbol, candles.timeframe, candles.calendar, candles.time, **fields)

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: slice) -> "Bars":
        """A contiguous part that shares memory: `bars[:100]`."""
        if rows.step not in (None, 1):
            raise ValueError("bars are sliced contiguously: a step would change their timeframe")
        columns = {name: getattr(self, name)[rows] for name in ("time", *FIELDS)}
        series = {name: values[rows] for name, values in self.series.items()}
        regime = None if self.regime is None else self.regime[rows]
        fits = self._fits_by(columns["time"])
        return replace(self, **columns, series=series, regime=regime, regime_fits=fits)

    def _fits_by(self, time: NDArray[np.int64]) -> Floats | None:
        """Fits of the regimes known at the close of the last of the bars."""
        if self.regime_fits is None or not len(self.regime_fits) or not len(time):
            return self.regime_fits
        known = self.regime_fits[:, 0] * 86_400_000_000_000 <= time[-1] + self.timeframe.nanoseconds
        return np.asarray(self.regime_fits[known])

    def under(self, gap_rules: int) -> "Bars":
        """The same bars under other rules of closures and outages; shares memory."""
        return self if gap_rules == self.gap_rules else replace(self, gap_rules=gap_rules)

    @property
    def start(self) -> pd.Timestamp:
        return moment_of(self.time[0])

    @property
    def end(self) -> pd.Timestamp:
        """Open time of the last bar."""
        return moment_of(self.time[-1])

    @property
    def index(self) -> pd.DatetimeIndex:
        # pandas.to_datetime takes four times as long
        return pd.DatetimeIndex(self.time, dtype="datetime64[ns, UTC]", name="timestamp")

    @cached_property
    def periods_per_year(self) -> float:
        """Bars in a year: nominal for a market that never closes, else counted from the bars."""
        return periods_per_year(self.time, self.timeframe, self.calendar)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over symbol, timeframe, calendar and every value, own series and regimes included,
        hexadecimal; equal on all machines."""
        digest = hashlib.sha256(f"bars-1|{self.symbol}|{self.timeframe}|{self.calendar}|{len(self)}".encode())
        digest.update(self.time.astype("<i8").tobytes())
        for name in FIELDS:
            # adding 0.0 turns -0.0 into 0.0: equal values, equal bytes
            digest.update((getattr(self, name) + 0.0).astype("<f8").tobytes())
        for name, values in sorted(self.series.items()):
            digest.update(f"|series|{name}|".encode())
            digest.update(np.where(np.isnan(values), np.nan, values + 0.0).astype("<f8").tobytes())
        if self.regime is not None:
            digest.update(b"|regime|" + self.regime.tobytes())
        if self.regime_fits is not None:
            digest.update(b"|fits|" + self.regime_fits.astype("<f8").tobytes())
        return digest.hexdigest()

    @cached_property
    def segments(self) -> NDArray[np.int64]:
        """Number of the unbroken stretch of each bar, from 0, shape (n_bars,).

        A new stretch begins after every outage of more than `BRIDGED_BARS` (any outage under rules 1).
        Closing times of the calendar break no stretch. Features and labels must not reach from one stretch
        into another.
        """
        numbers = np.zeros(len(self), dtype=np.int64)
        numbers[1:] = np.cumsum(self._missing_after > self._bridged_bars)
        numbers.setflags(write=False)
        return numbers

    @cached_property
    def bridged(self) -> NDArray[np.bool_]:
        """True for the first bar after an outage that is carried through, shape (n_bars,)."""
        marks = np.zeros(len(self), dtype=np.bool_)
        marks[1:] = (self._missing_after > 0) & (self._missing_after <= self._bridged_bars)
        marks.setflags(write=False)
        return marks

    @property
    def _bridged_bars(self) -> int:
        return 0 if self.gap_rules == 1 else BRIDGED_BARS

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """Outages in time order; closing times of the calendar do not count."""
        edges = self.index
        rows = np.flatnonzero(self._missing_after).tolist()
        return tuple(Gap(edges[row], edges[row + 1], int(self._missing_after[row])) for row in rows)

    @property
    def closures(self) -> int:
        """Number of neighbouring bars separated by a closing time of the calendar."""
        absent = np.diff(self.time) // self.timeframe.nanoseconds - 1
        return int(np.count_nonzero(absent > self._missing_after))

    def missing_until(self, now: datetime) -> int:
        """Bars that the calendar requires between the newest bar and the bar under way at a moment.

        0 for an empty series, which no bar begins.
        """
        if not len(self):
            return 0
        return missing_until(int(self.time[-1]), now, self.timeframe, self.calendar, self.gap_rules)

    @cached_property
    def _missing_after(self) -> NDArray[np.int64]:
        """Number of bars missing between each bar and the next, closing times excluded, shape (n_bars -
        1,)."""
        return missing_after(self.time, self.timeframe, self.calendar, self.gap_rules)

    def stretches(self) -> Iterator[slice]:
        """Rows of each unbroken stretch, in time order."""
        edges = np.flatnonzero(np.diff(self.segments)) + 1
        bounds = [0, *edges.tolist(), len(self)] if len(self) else []
        for first, last in pairwise(bounds):
            yield slice(first, last)

    def row_after(self, moment: datetime) -> int:
        """First row whose bar opens after a moment, or the number of rows if no bar does."""
        return int(np.searchsorted(self.time, pd.Timestamp(moment).value, side="right"))

    def row_closed_after(self, moment: datetime) -> int:
        """First row whose bar closes after a moment, or the number of rows if every bar has closed."""
        closes = self.time + self.timeframe.nanoseconds
        return int(np.searchsorted(closes, pd.Timestamp(moment).value, side="right"))

    def closed_by(self, moment: datetime) -> "Bars":
        """The bars that have closed by a moment: open time + timeframe <= moment."""
        return self[: self.row_closed_after(moment)]

    def last_days(self, days: int) -> "Bars":
        """Bars of the newest `days` x 24 h; needs at least one bar."""
        first = np.searchsorted(self.time, self.time[-1] - days * 86_400_000_000_000, side="right")
        return self[int(first) :]

    def to_frame(self) -> pd.DataFrame:
        """Columns open, high, low, close, volume over a UTC `timestamp` index."""
        return pd.DataFrame({name: getattr(self, name) for name in FIELDS}, index=self.index)
