"""Attribution of a profit: by market, regime, time, side, holding time, volatility and reasons of the trades.

The rows of each table add up to the total return, as fractions of the starting capital. Beside each row
stands the mean of its bars (or trades) with the standard error, in fractions of the capital before: of the
rows of a table, the largest always looks like an edge.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.backtest.results import ExitReason
from clm_core.evidence.track_record import NORMAL
from clm_core.explain.profit_parts import EntryReason, HeldParts, Numbers, Profit, SplitBars
from clm_core.market.bars import Floats
from clm_core.market.regimes import STATES

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SIDES = ("short", "long")
QUARTERS = ("calmest quarter", "second quarter", "third quarter", "wildest quarter", "not known yet")
HELD = (0, 1, 2, 6, 24, 96)
"""First number of bars held of each class of holding times."""
HELD_NAMES = ("within a bar", "1 bar", "2 to 5 bars", "6 to 23 bars", "24 to 95 bars", "96 bars and more")
ENTRIES = {
    EntryReason.FROM_FLAT: "from flat",
    EntryReason.FLIP: "flip from the other side",
    EntryReason.AFTER_ORDER: "after a stop or target",
}
EXITS = {
    ExitReason.SIGNAL: "signal",
    ExitReason.STOP_LOSS: "stop loss",
    ExitReason.TAKE_PROFIT: "take profit",
    ExitReason.END_OF_DATA: "open at the end",
    ExitReason.RUIN: "liquidation",
}
BARS = "bars"
TRADES = "trades"
MIN_COUNT = 30
"""Bars or trades of a row, below which its mean is not compared with chance."""
LEVEL = 0.05
"""Probability that any row of a table without an edge counts as beyond chance."""
DAY = 86_400_000_000_000


@dataclass(frozen=True)
class AttributionRow:
    name: str
    profit: float
    """After costs, a fraction of the starting capital."""
    cost: float
    """Fees, slippage and costs of holding within the profit, a fraction of the starting capital."""
    count: int
    """Bars with a position, or trades."""
    mean: float
    """Mean profit of a bar, or of a trade, after costs, a fraction of the capital before."""
    error: float
    """Standard error of the mean; NaN for a single one."""

    @property
    def score(self) -> float:
        """Mean in standard errors; NaN for fewer than `MIN_COUNT`, or profits that never vary."""
        return self.mean / self.error if self.count >= MIN_COUNT and self.error > 0.0 else math.nan


@dataclass(frozen=True)
class AttributionTable:
    name: str
    title: str
    unit: str
    """Unit of the counts and means: BARS or TRADES."""
    rows: tuple[AttributionRow, ...]

    @property
    def limit(self) -> float:
        """Score of a row beyond chance, by the number of rows (Bonferroni)."""
        return NORMAL.inv_cdf(1.0 - LEVEL / 2.0 / max(len(self.rows), 1))

    @property
    def beyond_chance(self) -> tuple[AttributionRow, ...]:
        return tuple(each for each in self.rows if abs(each.score) > self.limit)

    def profit_of(self, name: str) -> float:
        """Profit of a row; 0 for a missing row."""
        return sum(each.profit for each in self.rows if each.name == name)


@dataclass(frozen=True)
class Attribution:
    total: float
    """Total return, a fraction of the starting capital."""
    cost: float
    """Fees, slippage and costs of holding, a fraction of the starting capital."""
    split: AttributionTable
    """Selection, timing, sizing and cost (`explain.profit_parts`)."""
    months: AttributionTable
    """Calendar months with a position, oldest first: "2021-03"."""
    tables: tuple[AttributionTable, ...]

    def table(self, name: str) -> AttributionTable:
        return next(each for each in self.tables if each.name == name)


def attribution_of(profit: Profit, owners: str = "version") -> Attribution:
    """Tables of a profit; a table with a single possible row is left out.

    Args:
        owners: what the owners of the parts are: versions or models.
    """
    held = profit.held
    bars = _units_of(held.time)
    months, month = np.unique(held.time.astype("datetime64[ns]").astype("datetime64[M]"), return_inverse=True)
    names = tuple(months.astype(str).tolist())
    return Attribution(
        total=profit.total,
        cost=float(held.cost.sum()),
        split=_split_table(profit.split),
        months=_table("months", "By calendar month", held, month, names, bars, BARS),
        tables=tuple(_tables(held, bars, _units_of(held.trade), owners)),
    )


def _tables(held: HeldParts, bars: "_Units", trades: "_Units", owners: str) -> Iterator[AttributionTable]:
    moments = pd.DatetimeIndex(held.time)
    for name, keys in ((owners, held.owner), ("symbol", held.symbol)):
        codes, names = _named(keys)
        if len(names) > 1:
            yield _table(name, f"By {name}", held, codes, names, bars, BARS)

    def by_bar(name: str, title: str, codes: Numbers, names: Sequence[str]) -> AttributionTable:
        return _table(name, title, held, codes, names, bars, BARS)

    def by_trade(name: str, title: str, codes: Numbers, names: Sequence[str]) -> AttributionTable:
        return _table(name, title, held, codes, names, trades, TRADES)

    yield by_trade("side", "Long and short", (held.direction > 0).astype(np.int64), SIDES)
    if (held.regime >= 0).any():
        names = (*STATES, "unknown")
        yield by_bar("regime", "By regime", held.regime % len(names), names)
    hours = np.asarray(moments.hour, dtype=np.int64)
    if hours.any():
        names = tuple(f"{hour:02}:00" for hour in range(24))
        yield by_bar("hour", "By hour of the day (UTC)", hours, names)
    weekdays = np.asarray(moments.day_of_week, dtype=np.int64)
    yield by_bar("weekday", "By weekday (UTC)", weekdays, WEEKDAYS)
    yield by_bar("month", "By month of the year", np.asarray(moments.month - 1, np.int64), MONTHS)
    yield by_bar("volatility", "By volatility before the bar", _quarters(held), QUARTERS)
    holding = np.searchsorted(HELD, held.held, side="right") - 1
    yield by_trade("holding", "By holding time", holding, HELD_NAMES)
    yield by_trade("entry", "By reason of the entry", held.entry, tuple(ENTRIES.values()))
    yield by_trade("exit", "By reason of the exit", held.exit, tuple(EXITS.values()))


def _named(keys: NDArray[np.str_]) -> tuple[Numbers, tuple[str, ...]]:
    """Codes of names, and the names in ascending order."""
    if len(keys) and (keys == keys[0]).all():
        # one market of one version, as in a report: nothing to sort
        return np.zeros(len(keys), np.int64), (str(keys[0]),)
    names, codes = np.unique(keys, return_inverse=True)
    return codes.astype(np.int64), tuple(map(str, names))


class _Units(NamedTuple):
    """Bars, or trades, to which parts belong."""

    own: Numbers
    """Number of the unit of each part, by time or by trade, shape (n_parts,)."""
    total: int


def _units_of(keys: Numbers) -> _Units:
    kinds, number = np.unique(keys, return_inverse=True)
    return _Units(number, len(kinds))


def _quarters(held: HeldParts) -> Numbers:
    """Quarter of the volatility among the bars with a position in the market; the last code: not known."""
    codes = np.full(len(held.time), len(QUARTERS) - 1)
    known = np.isfinite(held.volatility)
    own, symbols = _named(held.symbol)
    for symbol in range(len(symbols)):
        rows = known & (own == symbol)
        if rows.any():
            edges = np.quantile(held.volatility[rows], (0.25, 0.5, 0.75))
            codes[rows] = np.searchsorted(edges, held.volatility[rows], side="left")
    return codes


def _table(
    name: str,
    title: str,
    held: HeldParts,
    codes: Numbers,
    names: Sequence[str],
    units: _Units,
    unit: str,
) -> AttributionTable:
    """
    Args:
        codes: number of the name of each part.
        units: bars, or trades, of the parts: parts of one unit in a row count once.
        unit: name of the units.
    """
    profit, cost = (np.bincount(codes, values, len(names)) for values in (held.profit, held.cost))
    counts, means, errors = _moments(codes, units, held.net_return, len(names))
    rows = zip(names, profit, cost, counts, means, errors, strict=True)
    return AttributionTable(
        name,
        title,
        unit,
        tuple(
            AttributionRow(title, float(earned), float(paid), int(count), float(mean), float(error))
            for title, earned, paid, count, mean, error in rows
            if count
        ),
    )


def _moments(codes: Numbers, units: _Units, returns: Floats, size: int) -> tuple[Numbers, Floats, Floats]:
    """Number, mean and standard error of the mean of the units' returns by code, shape (size,)."""
    keys, within = np.unique(codes * units.total + units.own, return_inverse=True)
    of_unit = np.bincount(within, returns, len(keys))
    group = keys // max(units.total, 1)
    count = np.bincount(group, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(group, of_unit, size) / count
        squares = np.bincount(group, (of_unit - mean[group]) ** 2, size)
        error = np.sqrt(squares / (count - 1) / count)
    return count, mean, np.where(count > 1, error, np.nan)


def _split_table(split: SplitBars) -> AttributionTable:
    """Selection, timing, sizing and cost, with the mean of all bars."""
    rows = []
    bars = _units_of(split.time)
    for name in ("selection", "timing", "sizing", "cost"):
        returns = getattr(split, name)
        counts, means, errors = _moments(np.zeros(len(returns), np.int64), bars, returns, 1)
        profit = float((returns * split.capital).sum())
        cost = -profit if name == "cost" else 0.0
        rows.append(AttributionRow(name, profit, cost, int(counts[0]), float(means[0]), float(errors[0])))
    return AttributionTable("split", "By decision", BARS, tuple(rows))
