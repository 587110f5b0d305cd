"""Rules of bars, for tables: every rule is checked, and every breach reported."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.domain.errors import DataError, Finding, InvalidBars
from clm_core.domain.spellings import normalise_symbol
from clm_core.market.columns import FIELDS, Floats
from clm_core.market.timeframes import Calendar, Timeframe, in_weekend

COLUMNS = ("timestamp", *FIELDS)

STUCK_BARS = 10
"""Number of bars in a row with equal prices and equal volume that indicates a repeating feed. Real series
have at most 2 (counted in 12 series of crypto, gold, shares and currencies); bars without a trade may
repeat, and the price of a thin market may stand still while the volumes differ."""

PRICE_JUMP = 50.0
"""Ratio of neighbouring prices that indicates a changed scale: x100 or /100 with room for a price move. The
largest real ratio counted is 14, on a thin test market."""

VOLUME_JUMP = 1000.0
"""Ratio of the median volumes of neighbouring stretches of `VOLUME_WINDOW` bars that indicates another unit,
such as quote volume in place of base volume. The largest real ratio counted is 11."""

VOLUME_WINDOW = 100

SPLIT_BARS = 5
"""Fewest bars before a split, so that the first bars of a listing are none; a fourth of the bars compared."""

SPACING_RUN = 20
"""Number of bars in a row a longer timeframe apart that indicates bars of that timeframe."""

ROUNDING = 0.02
"""Largest share of the price that counts as a rounding step: a tick of a coin at 0.00000070 is 1.4 %."""

FLOAT_NOISE = 1e-9
"""Share of the price by which equal prices may differ after arithmetic in another program."""

SPLIT_RATIO = 1.4
"""Smallest ratio of an open and the close before that is compared with the ratios of splits."""

OVERRULABLE = {
    "outside-range": "high and low are widened to open and close",
    "scale-jump": "the prices are taken as they are",
    "stuck-price": "the bars are taken as they are",
    "volume-scale-jump": "the volumes are taken as they are",
    "looks-like-split": "the prices are taken as they are",
    "other-spacing": "the bars in between count as missing",
    "other-symbol": "the bars are stored under the symbol passed",
    "closed-market": "the bars are taken as they are",
    "paged-holes": "the holes count as outages",
    "out-of-order": "the bars are sorted by time",
    "wrong-time-zone": "the bars keep their times off the UTC grid",
    "off-grid": "the bars keep their times off the UTC grid",
    "ambiguous-time": "a local time that exists twice is read as the first, in summer time",
}
"""Rules that one import may overrule by name, each with the consequence."""

_AN_OPTION = "an option of `clm data import` says what is meant; the refusal names it"
FIXED = {
    "nan": "no feature or model can use a bar without all its values",
    "infinite": "no feature or model can use an infinite value",
    "non-positive-price": "returns are not defined for prices of zero or below",
    "negative-volume": "no market trades a negative quantity",
    "high-below-low": "which of the two is wrong is unknown",
    "duplicate-time": "which of the bars is right is unknown: keep one of each in the file",
    "overlapping-bars": "no bar may open before the one before has closed",
    "future-bar": "a bar of the future is look-ahead",
    "open-bar": "the bar will change; leave it out with --drop-open-bar",
    "newest-first": "pass --reverse",
    "empty": "there is nothing to import",
    "unreadable-file": "there is nothing to import",
    "unreadable-time": "a bar without a time has no place; pass --time-format",
    "contradicts-store": "`clm data replace` replaces stored bars and shows what changes",
    **dict.fromkeys(
        ["missing-columns", "ambiguous-columns", "mixed-time-units", "mixed-time-zones", "unknown-time-zone"],
        _AN_OPTION,
    ),
    "nonexistent-time": _AN_OPTION,
}
"""Rules that cannot be overruled, each with the reason."""

_DATED = (Timeframe.D1, Timeframe.W1)
_HOUR = 3_600_000_000_000
_DAY = 24 * _HOUR
_ROWS_SHOWN = 20

Mask = NDArray[np.bool_]
Times = NDArray[np.int64]


@dataclass(frozen=True)
class CheckedColumns:
    """Columns of a table after a check of every rule but the overruled ones."""

    symbol: str
    """Canonical symbol."""
    time: Times
    """Bar-open times, nanoseconds since 1970-01-01 UTC, shape (n_bars,)."""
    fields: Mapping[str, Floats]
    """Values of `FIELDS`, each of shape (n_bars,)."""
    allowed: Mapping[str, int]
    """Overruled rules that the bars break, each with the number of bars."""
    adjusted: Mapping[str, int]
    """Corrections, each with the number of bars: `rounded`, `repeated-bars`."""


def checked_columns(
    frame: pd.DataFrame,
    symbol: str,
    timeframe: Timeframe,
    calendar: Calendar,
    *,
    now: datetime,
    origin: str,
    drop_open_bar: bool = False,
    allow: frozenset[str] = frozenset(),
) -> CheckedColumns:
    """Columns of a table as bars need them, or an error with all problems of the table.

    A high below the open or close, or a low above, by at most a rounding step (`rounding_steps`) is moved
    there and counted. Bars that repeat an earlier bar in every value are left out and counted.

    Args:
        frame: columns open, high, low, close, volume, and `timestamp` (or a DatetimeIndex) with bar-open
            times. Times in another zone are converted to UTC; times without a zone are refused, except
            plain dates of daily and weekly bars, which are read as days in UTC. An optional column `opened`
            has the real open times of daily bars stored under their date.
        symbol: symbol in any spelling of `normalise_symbol`.
        now: present moment, with a time zone; later and still open bars are refused.
        origin: origin of the table, for the error message.
        drop_open_bar: leave out a last bar still open instead of refusing the table.
        allow: names of rules that the bars may break, of those in `OVERRULABLE`.

    Raises:
        InvalidBars: at least one rule is broken; the error carries all findings.
        InvalidSymbol: the symbol cannot name a series.
        DataError: a rule in `allow` cannot be overruled.
    """
    name = normalise_symbol(symbol)
    refuse_unknown_rules(allow)
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
    again = _repeated_bars(columns["timestamp"], values)
    repeated = int(again.sum())
    if repeated:
        columns = columns[~again].reset_index(drop=True)
        values = values[~again]
    time, findings = _utc(columns["timestamp"], timeframe)
    opened = _nanoseconds(pd.DatetimeIndex(columns["opened"])) if "opened" in columns.columns else time
    if drop_open_bar and opened[-1] <= moment < opened[-1] + timeframe.nanoseconds:
        time = time[:-1]
        opened = opened[:-1]
        values = values[:-1]
        if not len(time):
            raise InvalidBars(origin, [Finding("empty", (), 0, "there is no bar but the open one")])
    values, rounded = _clipped(values)
    findings += [
        *_value_findings(values),
        *_level_findings(values),
        *(_time_findings(time, opened, timeframe, calendar, moment) if _readable(time).all() else []),
        *(_split_findings(time, values, timeframe) if _readable(time).all() else []),
    ]
    allowed = {finding.rule: finding.count for finding in findings if finding.rule in allow}
    if len(findings) > len(allowed):
        broken = [finding for finding in findings if finding.rule not in allow]
        raise InvalidBars(origin, [_with_example(finding, columns) for finding in broken])
    if "out-of-order" in allowed:
        order = np.argsort(time, kind="stable")
        time = time[order]
        values = values[order]
    if "outside-range" in allowed:
        values = _widened(values)
    fields = {field: np.ascontiguousarray(values[:, column]) for column, field in enumerate(FIELDS)}
    counted = {"rounded": rounded, "repeated-bars": repeated}
    adjusted = {rule: count for rule, count in counted.items() if count}
    return CheckedColumns(name, time, fields, allowed, adjusted)


def refuse_unknown_rules(rules: Iterable[str]) -> None:
    """Raises:
    DataError: a rule is unknown, or cannot be overruled; the message says why.
    """
    for rule in rules:
        if rule in FIXED:
            raise DataError(f"{rule} cannot be overruled: {FIXED[rule]}")
        if rule not in OVERRULABLE:
            raise DataError(f"there is no rule {rule!r} to allow; use one of {', '.join(OVERRULABLE)}")


def _repeated_bars(time: "pd.Series[pd.Timestamp]", values: Floats) -> Mask:
    """True for rows that repeat an earlier row in time and every value, shape (n_rows,)."""
    if not time.duplicated().any():
        return np.zeros(len(time), dtype=np.bool_)
    table = pd.DataFrame(values).assign(time=pd.Series(time.array))
    return np.asarray(table.duplicated() & table["time"].notna())


def rounding_steps(prices: Floats) -> Floats:
    """Largest difference of two prices of each column that is rounding, shape (n_columns,).

    A unit of the last decimal written in the column, at most 12 decimals; shape of `prices`: (n_bars,
    n_columns), all finite.
    """
    steps = np.zeros(prices.shape[1])
    for column in range(prices.shape[1]):
        for decimals in range(13):
            scaled = prices[:, column] * 10.0**decimals
            noise = 1e-6 + 4 * np.spacing(np.abs(scaled))
            if np.all(np.abs(scaled - np.rint(scaled)) <= noise):
                steps[column] = 10.0**-decimals
                break
    return steps


def _clipped(values: Floats) -> tuple[Floats, int]:
    """Values with highs and lows widened to open and close where they differ by rounding, and the number of
    such bars.

    Rounding is at most a unit of the last decimal of the coarser of both columns, and at most `ROUNDING` of
    the price; or `FLOAT_NOISE` of the price.
    """
    open_, high, low, close = (values[:, column] for column in range(4))
    body_low = np.minimum(open_, close)
    body_high = np.maximum(open_, close)
    with np.errstate(invalid="ignore", over="ignore"):
        beyond = np.maximum(body_high - high, low - body_low)
        outside = (high >= low) & (beyond > 0) & np.isfinite(values).all(axis=1)
    if not outside.any():
        return values, 0
    finite = values[np.isfinite(values).all(axis=1)][:, :4]
    step = float(rounding_steps(finite).max())
    # the difference of two decimals is not exact
    tolerance = np.maximum(np.minimum(step * (1 + 1e-6), ROUNDING * body_low), FLOAT_NOISE * body_low)
    rounded = outside & (beyond <= tolerance)
    return np.where(rounded[:, None], _widened(values), values), int(rounded.sum())


def _widened(values: Floats) -> Floats:
    widened = values.copy()
    widened[:, 1] = values[:, :4].max(axis=1)
    widened[:, 2] = values[:, :4].min(axis=1)
    return widened


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
    meant = f". Meant so: --allow {finding.rule}" if finding.rule in OVERRULABLE else ""
    return Finding(finding.rule, finding.rows, finding.count, f"{finding.message}{meant}. First: {example}")


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
    if naive and not (timeframe in (Timeframe.D1, Timeframe.W1) and bool(np.all(time[readable] % _DAY == 0))):
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
        # the first trades of a listing are often far from the market
        spikes[:1] = False
    jumps = np.concatenate([[False], jumps]) | spikes
    message = (
        f"neighbouring prices differ by a factor of {PRICE_JUMP:.0f} or more: another scale or currency unit"
    )
    yield from _findings("scale-jump", jumps, message)
    message = f"{STUCK_BARS} or more bars in a row have equal prices and volumes: the feed repeats itself"
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
    traded = values[:, 4] > 0
    fresh = _any(values[1:] != values[:-1]) | ~traded[1:] | ~traded[:-1]
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


def _time_findings(
    time: Times, opened: Times, timeframe: Timeframe, calendar: Calendar, moment: int
) -> Iterator[Finding]:
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
    ordered = np.unique(time)
    spacing = list(_other_spacing(time, ordered, timeframe))
    yield from spacing
    if not spacing:
        yield from _off_grid(time - timeframe.grid_start, step, timeframe)
    close_by = np.concatenate([[False], np.diff(ordered) < step])
    message = f"the bar opens before the one before has closed, {timeframe} later: wrong --timeframe"
    overlapping = np.isin(time, ordered[close_by])
    yield from _findings("overlapping-bars", overlapping, message)
    weekend = in_weekend(time, timeframe) & (calendar == Calendar.WEEKDAYS)
    message = "the market is closed then: wrong --timezone, or it never closes (--calendar 24x7)"
    yield from _findings("closed-market", weekend, message)
    yield from _findings(
        "future-bar", time > moment, "the bar opens in the future: wrong zone, unit or clock"
    )
    # bars stored under their date may have opened after the midnight of the date
    begun = np.maximum(time, opened) if calendar == Calendar.ALWAYS else time
    message = "the bar is still open and will change; pass --drop-open-bar to leave it out"
    yield from _findings("open-bar", (time <= moment) & (begun > moment - step), message)
    if not spacing:
        yield from _paged_holes(ordered, step)


def _other_spacing(time: Times, ordered: Times, timeframe: Timeframe) -> Iterator[Finding]:
    """Bars of another length than `timeframe`: all bars, or a long run."""
    step = timeframe.nanoseconds
    moves = np.diff(ordered)
    if len(moves) < 3:
        return
    lengths, counts = np.unique(moves, return_counts=True)
    usual = int(lengths[counts.argmax()])
    if not np.any(moves == step) and (usual < step or counts.max() >= 0.5 * len(moves)):
        everything = np.ones(len(time), dtype=np.bool_)
        yield from _findings("other-spacing", everything, _spacing_message("the bars are", usual))
        return
    runs = np.cumsum(np.concatenate([[True], moves[1:] != moves[:-1]])) - 1
    other = np.isin(moves, [each.nanoseconds for each in Timeframe if each.nanoseconds > step])
    long = other & (np.bincount(runs)[runs] >= SPACING_RUN)
    if long.any():
        first = int(moves[np.flatnonzero(long)[0]])
        rows = np.isin(time, ordered[1:][long])
        message = _spacing_message(f"{SPACING_RUN} or more bars in a row are", first)
        yield from _findings("other-spacing", rows, message)


def _spacing_message(subject: str, length: int) -> str:
    named = next((each for each in Timeframe if each.nanoseconds == length), None)
    for unit, size in (("day", _DAY), ("hour", _HOUR), ("minute", _HOUR // 60), ("second", _HOUR // 3600)):
        if length % size == 0:
            count = length // size
            apart = f"a{'n' if unit == 'hour' else ''} {unit}" if count == 1 else f"{count} {unit}s"
            break
    else:
        apart = f"{length} ns"
    remedy = "no timeframe has the length" if named is None else f"pass --timeframe {named}"
    return f"{subject} {apart} apart: {remedy}"


def _split_findings(time: Times, values: Floats, timeframe: Timeframe) -> Iterator[Finding]:
    """Opens that differ from the close before as in a split of shares, with prices that stay there.

    A gap counts if the ratio is near one of small integers and far beyond the usual moves, if the median
    close of the bars after keeps the ratio, and, for ratios other than n:1 and 1:n, if the volume moves
    inversely.
    """
    open_ = values[:, 0]
    close = values[:, 3]
    volume = values[:, 4]
    if len(time) < 2 or not np.isfinite(values).all() or (values[:, :4] <= 0).any():
        return
    if time[0] > time[-1]:
        return
    gaps = np.log(open_[1:] / close[:-1])
    usual = 1.4826 * float(np.median(np.abs(np.diff(np.log(close)))))
    sudden = np.abs(gaps) >= max(np.log(SPLIT_RATIO), 8 * usual)
    rows = np.flatnonzero(sudden & (np.abs(gaps) < np.log(PRICE_JUMP))) + 1
    # a series full of such gaps is a thin market, not a company that splits its shares
    if len(rows) > 3 + len(time) / 500:
        return
    splits = [
        (row, split)
        for row in rows.tolist()
        if (split := _split(row, float(gaps[row - 1]), close, volume, usual))
    ]
    if splits:
        broken = np.zeros(len(time), dtype=np.bool_)
        broken[[row for row, _ in splits]] = True
        moment = "%Y-%m-%d" if timeframe in (Timeframe.D1, Timeframe.W1) else "%Y-%m-%d %H:%M"
        dates = ", ".join(f"{split} on {pd.Timestamp(int(time[row])):{moment}}" for row, split in splits[:5])
        message = (
            f"the price looks like a split of {dates}: import adjusted prices, or divide the bars before by "
            "the ratio"
        )
        yield from _findings("looks-like-split", broken, message)


def _split(row: int, gap: float, close: Floats, volume: Floats, usual: float) -> str | None:
    """Ratio of the split before a row, new shares to old: `10:1`, `3:2`, `1:8`; None if it is none."""
    if row < SPLIT_BARS:
        return None
    size = np.exp(abs(gap))
    names: dict[float, str] = {whole: f"{whole}:1" for whole in range(2, int(PRICE_JUMP))}
    names |= {1.5: "3:2", 2.5: "5:2", 5 / 3: "5:3"}
    ratio = min(names, key=lambda each: abs(np.log(each / size)))
    if abs(np.log(ratio / size)) > np.clip(5 * usual, 0.005, 0.05):
        return None
    before = slice(max(0, row - 4 * SPLIT_BARS), row)
    after = slice(row, row + 4 * SPLIT_BARS)
    level = np.log(np.median(close[after]) / np.median(close[before]))
    if abs(level - gap) > 0.4 * abs(gap):
        return None
    volumes = np.median(volume[before]), np.median(volume[after])
    inverse = -np.log(volumes[1] / volumes[0]) / gap if min(volumes) > 0 else 0.0
    if ratio != int(ratio) and not inverse >= 0.5:
        return None
    new, old = names[ratio].split(":")
    return f"{new}:{old}" if gap < 0 else f"{old}:{new}"


def _off_grid(time: Times, step: int, timeframe: Timeframe) -> Iterator[Finding]:
    rest = time % step
    whole_hours = bool(np.all(rest % _HOUR == 0) and np.mean(rest != 0) > 0.5)
    if whole_hours:
        hours = int(rest[rest != 0][0] // _HOUR)
        dated = timeframe in _DATED
        remedy = "store them under their date: --by-date" if dated else "rebuild them from shorter ones"
        message = (
            f"{timeframe} bars open {hours} h past the UTC grid: the times are in another zone (pass it as "
            f"--timezone) or the bars are cut at another hour ({remedy})"
        )
        yield from _findings("wrong-time-zone", rest != 0, message)
    else:
        message = (
            f"the time is no multiple of {timeframe}: wrong --timeframe, or a close time in place of the open"
            + (", or bars to store under their date: --by-date" if timeframe in _DATED else "")
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
