"""Validation of tables: the single way to create `Bars`, with every rule checked and every breach
reported."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.domain.errors import Finding, InvalidBars
from clm_core.domain.spellings import normalise_symbol
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe, in_weekend

COLUMNS = ("timestamp", *FIELDS)

STUCK_BARS = 10
"""Number of identical bars in a row, all with volume, that indicates a repeating feed. Real series have at
most 2 (counted in 12 series of crypto, gold, shares and currencies); bars without a trade may repeat."""

PRICE_JUMP = 50.0
"""Ratio of neighbouring prices that indicates a changed scale: x100 or /100 with room for a price move. The
largest real ratio counted is 14, on a thin test market."""

VOLUME_JUMP = 1000.0
"""Ratio of the median volumes of neighbouring stretches of `VOLUME_WINDOW` bars that indicates another unit,
such as quote volume in place of base volume. The largest real ratio counted is 11."""

VOLUME_WINDOW = 100

_HOUR = 3_600_000_000_000
_DAY = 24 * _HOUR
_ROWS_SHOWN = 20

Mask = NDArray[np.bool_]
Times = NDArray[np.int64]


def validate(
    frame: pd.DataFrame,
    symbol: str,
    timeframe: Timeframe,
    calendar: Calendar,
    *,
    now: datetime,
    origin: str,
    drop_open_bar: bool = False,
) -> Bars:
    """Bars of a table, or an error with all problems of the table.

    Args:
        frame: columns open, high, low, close, volume, and `timestamp` (or a DatetimeIndex) with bar-open
            times. Times in another zone are converted to UTC; times without a zone are refused, except
            plain dates of daily bars, which are read as days in UTC.
        symbol: symbol in any spelling of `normalise_symbol`.
        now: present moment, with a time zone; later and still open bars are refused.
        origin: origin of the table, for the error message.
        drop_open_bar: leave out a last bar still open instead of refusing the table.

    Raises:
        InvalidBars: at least one rule is broken; the error carries all findings.
        InvalidSymbol: the symbol cannot name a series.
    """
    name = normalise_symbol(symbol)
    moment = pd.Timestamp(now).tz_convert("UTC").as_unit("ns").value
    columns = frame if "timestamp" in frame.columns else frame.rename_axis("timestamp").reset_index()
    missing = [column for column in COLUMNS if column not in columns.columns]
    if missing or columns.empty:
        raise InvalidBars(origin, [_no_table(columns, missing)])
    values = np.column_stack(
        [
            pd.to_numeric(columns[field], errors="coerce").to_numpy(np.float64, na_value=np.nan)
            for field in FIELDS
        ]
    )
    time, findings = _utc(columns["timestamp"], timeframe)
    if drop_open_bar and time[-1] <= moment < time[-1] + timeframe.nanoseconds:
        time = time[:-1]
        values = values[:-1]
    findings += [
        *_value_findings(values),
        *_level_findings(values),
        *(_time_findings(time, timeframe, calendar, moment) if _readable(time).all() else []),
    ]
    if findings:
        raise InvalidBars(origin, [_with_example(finding, columns) for finding in findings])
    arrays: dict[str, Any] = {
        field: np.ascontiguousarray(values[:, column]) for column, field in enumerate(FIELDS)
    }
    return Bars(name, timeframe, calendar, time, **arrays)


def _no_table(frame: pd.DataFrame, missing: list[str]) -> Finding:
    if missing:
        have = ", ".join(map(str, frame.columns))
        return Finding("missing-columns", (), len(frame), f"no {', '.join(missing)}; there is {have}")
    return Finding("empty", (), 0, "there is no bar")


def _readable(time: Times) -> Mask:
    return np.asarray(time != pd.NaT.value)


def _any(cells: Mask) -> Mask:
    """True for rows with any True cell, shape (n_rows,)."""
    return np.asarray(cells.any(axis=1))


def _findings(rule: str, broken: Mask, message: str) -> Iterator[Finding]:
    rows = np.flatnonzero(broken)
    if len(rows):
        yield Finding(rule, tuple(rows[:_ROWS_SHOWN].tolist()), len(rows), message)


def _with_example(finding: Finding, frame: pd.DataFrame) -> Finding:
    if not finding.rows:
        return finding
    row = frame.iloc[finding.rows[0]]
    example = ", ".join(f"{column} {row[column]}" for column in COLUMNS)
    return Finding(finding.rule, finding.rows, finding.count, f"{finding.message}. First: {example}")


def _utc(column: "pd.Series[pd.Timestamp]", timeframe: Timeframe) -> tuple[Times, list[Finding]]:
    """Nanoseconds since 1970-01-01 UTC, NaT for missing times, and findings about times and time zone."""
    if not pd.api.types.is_datetime64_any_dtype(column):
        everything = np.ones(len(column), dtype=np.bool_)
        message = "the timestamps are not times; convert them, or import the file by `clm data import`"
        return np.full(len(column), pd.NaT.value), list(_findings("unreadable-time", everything, message))
    index = pd.DatetimeIndex(column)
    naive = index.tz is None
    time = _nanoseconds(index)
    readable = _readable(time)
    findings = list(
        _findings("unreadable-time", ~readable, "the time is missing or no ISO 8601 (--time-format)")
    )
    if naive and not (timeframe is Timeframe.D1 and bool(np.all(time[readable] % _DAY == 0))):
        message = "the times carry no time zone; pass the one they are in, e.g. --timezone UTC"
        findings += _findings("unknown-time-zone", readable, message)
    return time, findings


def _nanoseconds(index: pd.DatetimeIndex) -> Times:
    """Nanoseconds since 1970-01-01; NaT for times beyond 64 bits (before 1678, after 2261)."""
    units = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
    factor = units[index.unit]
    held = np.abs(index.asi8.astype(np.float64)) * factor < 2.0**63
    return np.where(held, np.where(held, index.asi8, 0) * factor, pd.NaT.value)


def _value_findings(values: Floats) -> Iterator[Finding]:
    prices = values[:, :4]
    volume = values[:, 4]
    open_, high, low, close = (values[:, column] for column in range(4))
    body_low = np.minimum(open_, close)
    body_high = np.maximum(open_, close)
    outside = (high >= low) & ((body_low < low) | (body_high > high))
    yield from _findings("nan", _any(np.isnan(values)), "a value is missing or not a number")
    yield from _findings("infinite", _any(np.isinf(values)), "a value is infinite")
    yield from _findings("non-positive-price", _any(prices <= 0), "a price is zero or negative")
    yield from _findings("negative-volume", volume < 0, "the volume is negative")
    yield from _findings("high-below-low", high < low, "the high is below the low")
    yield from _findings("outside-range", outside, "open or close lies outside low..high")


def _level_findings(values: Floats) -> Iterator[Finding]:
    close = values[:, 3]
    volume = values[:, 4]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        jumps = _differ_by_factor(close[1:], close[:-1], PRICE_JUMP)
        spikes = _differ_by_factor(values[:, 1], values[:, 2], PRICE_JUMP)
    jumps = np.concatenate([[False], jumps]) | spikes
    message = (
        f"neighbouring prices differ by a factor of {PRICE_JUMP:.0f} or more: another scale or currency unit"
    )
    yield from _findings("scale-jump", jumps, message)
    message = f"{STUCK_BARS} or more bars in a row are identical and have volume: the feed repeats itself"
    yield from _findings("stuck-price", _stuck(values), message)
    message = (
        f"typical volume changes by a factor of {VOLUME_JUMP:.0f} or more: another unit from here on "
        "(base and quote volume swapped?)"
    )
    yield from _findings("volume-scale-jump", _volume_jumps(volume), message)


def _differ_by_factor(left: Floats, right: Floats, factor: float) -> Mask:
    """True for pairs of positive values with a ratio of at least `factor` either way, shape (n,)."""
    ratio = left / right
    return np.asarray((left > 0) & (right > 0) & ((ratio >= factor) | (ratio <= 1 / factor)))


def _stuck(values: Floats) -> Mask:
    prices = values[:, :4]
    traded = values[:, 4] > 0
    fresh = _any(prices[1:] != prices[:-1]) | ~traded[1:] | ~traded[:-1]
    run = np.concatenate([[0], np.cumsum(fresh)])
    return np.asarray(np.bincount(run)[run] >= STUCK_BARS)


def _volume_jumps(volume: Floats) -> Mask:
    """True for rows with a `VOLUME_JUMP` between the medians of the windows before and after, shape (n,)."""
    median = pd.Series(volume).rolling(VOLUME_WINDOW).median().to_numpy()
    broken: Mask = np.zeros(len(volume), dtype=np.bool_)
    if len(volume) < 2 * VOLUME_WINDOW:
        return broken
    before = median[VOLUME_WINDOW - 1 : -VOLUME_WINDOW]
    after = median[2 * VOLUME_WINDOW - 1 :]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        broken[VOLUME_WINDOW : len(volume) - VOLUME_WINDOW + 1] = _differ_by_factor(
            after, before, VOLUME_JUMP
        )
    return broken


def _time_findings(time: Times, timeframe: Timeframe, calendar: Calendar, moment: int) -> Iterator[Finding]:
    if len(time) == 0:
        return
    step = timeframe.nanoseconds
    moves = np.diff(time)
    newest_first = bool(time[0] > time[-1] and np.mean(moves < 0) > 0.5)
    backwards = moves > 0 if newest_first else moves < 0
    message = "the newest bar comes first; pass --reverse to import it the other way round"
    yield from _findings("newest-first", np.full(len(time), newest_first), message)
    message = "a bar is out of order; sort the file by time after finding out why"
    yield from _findings("out-of-order", np.concatenate([[False], backwards]), message)
    yield from _findings(
        "duplicate-time", pd.Index(time).duplicated(), "the time was there before; keep one bar of each"
    )
    yield from _off_grid(time - timeframe.grid_start, step, timeframe)
    weekend = in_weekend(time, timeframe) & (calendar == Calendar.WEEKDAYS)
    message = "the market is closed then: wrong --timezone, or it never closes (--calendar 24x7)"
    yield from _findings("closed-market", weekend, message)
    yield from _findings(
        "future-bar", time > moment, "the bar opens in the future: wrong zone, unit or clock"
    )
    message = "the bar is still open and will change; pass --drop-open-bar to leave it out"
    yield from _findings("open-bar", (time <= moment) & (time > moment - step), message)
    yield from _paged_holes(np.sort(time), step)


def _off_grid(time: Times, step: int, timeframe: Timeframe) -> Iterator[Finding]:
    rest = time % step
    whole_hours = bool(np.all(rest % _HOUR == 0) and np.mean(rest != 0) > 0.5)
    if whole_hours:
        hours = int(rest[rest != 0][0] // _HOUR)
        message = (
            f"{timeframe} bars open {hours} h past the UTC grid: the times are in another zone (pass it as "
            "--timezone) or the bars are cut at another hour (rebuild them from shorter ones)"
        )
        yield from _findings("wrong-time-zone", rest != 0, message)
    else:
        message = (
            f"the time is no multiple of {timeframe}: wrong --timeframe, or a close time in place of the open"
        )
        yield from _findings("off-grid", rest != 0, message)


def _paged_holes(time: Times, step: int) -> Iterator[Finding]:
    """Holes at regular distances other than whole days: a download that lost part of every page."""
    moves = np.diff(time)
    holes = np.flatnonzero(moves > step) + 1
    if len(holes) < 10:
        return
    rhythms, times_seen = np.unique(np.diff(time[holes]), return_counts=True)
    rhythm = int(rhythms[times_seen.argmax()])
    if times_seen.max() >= 0.8 * len(holes) and rhythm % _DAY != 0:
        broken = np.zeros(len(time), dtype=np.bool_)
        broken[holes] = True
        message = f"holes return every {rhythm // step} bars: each page of a download lost its tail"
        yield from _findings("paged-holes", broken, message)
