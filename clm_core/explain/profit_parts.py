"""Profit of a backtest in parts: each bar with a position, by trade, and what the average position earned.

All amounts are fractions of the starting capital. The profit of a bar is its return times the capital before
the bar, so that the parts add up to the total return, compounding included.

A bar has parts of two trades where one trade ends and the next begins at its open: the former has the move
from the close before to the open, the costs of holding into the bar and of the exit; the latter the rest.

The split of the profit follows Lo (2008), "Where do alphas come from?", Journal of Investment Management
6(2), with the active part in two, and costs apart. With the exposure x of a bar, the return r of the market,
the mean exposure m over all bars, the mean size s over the bars with a position, and the capital E before:

    selection   sum of E m r                    the average position, held all the time
    sizing      sum of E (x - s sign(x)) r      larger and smaller positions than the average size
    cost        minus fees, slippage and costs of holding
    timing      the rest: sum of E (s sign(x) - m) r, and the exits by resting orders within a bar

A bar counts as two intervals, the move to the open under the old position and the move from there under the
new one. A position closed within a bar counts with its size to the close; the difference is timing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.backtest.bar_costs import costs_by_bar
from clm_core.backtest.results import LEAST_RETURN, Backtest, ExitReason, Trades
from clm_core.backtest.terms import MarketTerms
from clm_core.market.bars import Bars, Floats
from clm_core.market.regimes import UNKNOWN

Numbers = NDArray[np.int64]
VOLATILITY_BARS = 50
"""Bars before a bar whose returns give its volatility."""
WITHIN = (ExitReason.STOP_LOSS, ExitReason.TAKE_PROFIT, ExitReason.RUIN, ExitReason.END_OF_DATA)
"""Exits that may come after the open of the bar."""


class EntryReason(IntEnum):
    """Reason for the entry of a trade."""

    FROM_FLAT = 0
    FLIP = 1
    """The trade before, of the other side, ended at the same open."""
    AFTER_ORDER = 2
    """The trade before ended by a stop, a target or a liquidation."""


@dataclass(frozen=True, eq=False)
class TradedMarket:
    """Backtest of a market."""

    bars: Bars
    result: Backtest
    market: MarketTerms
    regime: NDArray[np.int8] | None = None
    """Regime known at the open of each bar, shape (n_bars,); None for unknown regimes."""


@dataclass(frozen=True, eq=False)
class TradedStretch:
    """Successive bars traded from flat by one set of execution rules: a market, or the members of a pool."""

    axis: Bars
    """Bars of the market, or the common axis, shape (n_bars,)."""
    returns: Floats
    """Returns of the market's backtest, or of the portfolio, shape (n_bars,)."""
    markets: Sequence[TradedMarket]
    members: int
    """Number of markets sharing the capital."""
    owner: NDArray[np.str_] | None = None
    """Version in charge of each bar, shape (n_bars,); None for a single one."""


@dataclass(frozen=True, eq=False)
class HeldParts:
    """Bars with a position, by trade, arrays of shape (n_parts,)."""

    time: Numbers
    """Open time of the bar, nanoseconds since 1970-01-01 UTC."""
    trade: Numbers
    """Number of the trade."""
    symbol: NDArray[np.str_]
    owner: NDArray[np.str_]
    """Version, or model, in charge."""
    direction: Numbers
    """1 long, -1 short."""
    held: Numbers
    """Bars from the entry to the exit of the trade."""
    entry: Numbers
    """`EntryReason` of the trade."""
    exit: Numbers
    """`ExitReason` of the trade."""
    regime: Numbers
    volatility: Floats
    """Standard deviation of the log returns of the `VOLATILITY_BARS` bars before; NaN for the first bars."""
    profit: Floats
    """Profit after costs, a fraction of the starting capital."""
    cost: Floats
    """Fees, slippage and costs of holding within the profit, a fraction of the starting capital."""
    net_return: Floats
    """Profit after costs, a fraction of the capital before the bar."""


@dataclass(frozen=True, eq=False)
class SplitBars:
    """Profit of each bar of each market split by decision, arrays of shape (n,)."""

    time: Numbers
    capital: Floats
    """Capital before the bar, as a multiple of the starting capital."""
    selection: Floats
    """Fractions of the capital before the bar, as the three below."""
    timing: Floats
    sizing: Floats
    cost: Floats
    """At most 0, unless more was received for holding than paid."""


@dataclass(frozen=True, eq=False)
class Profit:
    """Profit of a backtest, or of paper records, in parts."""

    held: HeldParts
    split: SplitBars
    total: float
    """Total return, a fraction of the starting capital."""


@dataclass(frozen=True, eq=False)
class _Exposures:
    """Exposure and moves of each bar of a market, arrays of shape (n_bars,)."""

    time: Numbers
    symbol: NDArray[np.str_]
    weight: Floats
    """Share of the market in the capital."""
    capital: Floats
    gap: Floats
    """Move from the close before to the open, a fraction of the close before."""
    session: Floats
    """Move from the open to the close, a fraction of the open."""
    at_gap: Floats
    """Exposure held into the bar, a fraction of the equity before the bar."""
    at_session: Floats
    """Value of the position after the open, a fraction of the equity before the bar."""
    net: Floats
    cost: Floats


def profit_of(stretches: Sequence[TradedStretch]) -> Profit:
    """Profit of successive stretches, each with the capital that the one before has left.

    Args:
        stretches: in time order.
    """
    held = list[HeldParts]()
    exposures = list[_Exposures]()
    capital = 1.0
    trades = 0
    for stretch in stretches:
        growth = np.concatenate([[1.0], np.cumprod(1.0 + stretch.returns)])
        for each in stretch.markets:
            rows = np.searchsorted(stretch.axis.time, each.bars.time)
            owner = np.full(len(rows), "") if stretch.owner is None else stretch.owner[rows]
            part = _exposures(each, capital * growth[rows], 1.0 / stretch.members)
            exposures.append(part)
            held.append(_held_parts(each, part, owner, trades))
            trades += len(each.result.trades)
        capital *= float(growth[-1])
    return Profit(_joined(held), _split(_joined(exposures)), capital - 1.0)


def together(profits: Sequence[tuple[str, Profit]]) -> Profit:
    """Sum of the profits of several models, by the names of their owners, each on a capital of its own."""
    held = list[HeldParts]()
    trades = 0
    for owner, each in profits:
        named = np.full(len(each.held.time), owner)
        held.append(replace(each.held, owner=named, trade=each.held.trade + trades))
        trades += int(each.held.trade.max(initial=-1)) + 1
    splits = [each.split for _, each in profits]
    return Profit(_joined(held), _joined(splits), sum(each.total for _, each in profits))


def _joined(parts: Sequence[Any]) -> Any:
    """Records of arrays, one after another."""
    kind = type(parts[0])
    names = [field.name for field in fields(kind)]
    return kind(**{name: np.concatenate([getattr(each, name) for each in parts]) for name in names})


def _exposures(traded: TradedMarket, capital: Floats, share: float) -> _Exposures:
    bars = traded.bars
    result = traded.result
    close_before = np.concatenate([bars.open[:1], bars.close[:-1]])
    before = _equity_before(result)
    units = _units_in_session(result, bars)
    return _Exposures(
        time=bars.time,
        symbol=np.full(len(bars), bars.symbol),
        weight=np.full(len(bars), share),
        capital=capital,
        gap=bars.open / close_before - 1.0,
        session=bars.close / bars.open - 1.0,
        at_gap=np.concatenate([[0.0], result.exposure[:-1]]),
        at_session=np.divide(units * bars.open, before, out=np.zeros(len(bars)), where=before > 0.0),
        net=result.returns,
        cost=costs_by_bar(bars, result, traded.market),
    )


def _equity_before(result: Backtest) -> Floats:
    begun = result.equity[:1] / (1.0 + np.maximum(result.returns[:1], LEAST_RETURN))
    return np.concatenate([begun, result.equity[:-1]])


def _units_in_session(result: Backtest, bars: Bars) -> Floats:
    """Units held after the open of each bar, shape (n_bars,).

    A bar flat at the close in which a trade may have ended after the open has the units at the close before,
    or of the entry in the bar.
    """
    units = result.exposure * result.equity / bars.close
    trades = result.trades
    ended = np.isin(trades.reason, WITHIN) & (units[trades.exit_bar] == 0.0)
    first = trades.entry_bar[ended]
    last = trades.exit_bar[ended]
    committed = np.divide(
        trades.pnl, trades.net_return, out=np.zeros(len(trades)), where=trades.net_return != 0.0
    )
    entered = (trades.direction * committed / trades.entry_price)[ended]
    units[last] = np.where(first == last, entered, units[np.maximum(last - 1, 0)])
    return np.asarray(units)


def _held_parts(traded: TradedMarket, of_bar: _Exposures, owner: NDArray[np.str_], trades: int) -> HeldParts:
    """
    Args:
        trades: number of the first trade.
    """
    closed = traded.result.trades
    trade, row = _rows_of_trades(closed)
    net, cost = _by_trade(traded, of_bar, trade, row)
    capital = of_bar.capital[row]
    regime = np.full(len(traded.bars), UNKNOWN) if traded.regime is None else traded.regime
    return HeldParts(
        time=of_bar.time[row],
        trade=trade + trades,
        symbol=of_bar.symbol[row],
        owner=owner[row],
        direction=closed.direction[trade],
        held=closed.bars[trade],
        entry=_entries(closed)[trade],
        exit=closed.reason[trade],
        regime=regime[row].astype(np.int64),
        volatility=_volatility(traded.bars)[row],
        profit=net * of_bar.weight[row] * capital,
        cost=cost * of_bar.weight[row] * capital,
        net_return=net * of_bar.weight[row],
    )


def _rows_of_trades(trades: Trades) -> tuple[Numbers, Numbers]:
    """Number of the trade, and row of the bar, for every bar from the entry to the exit of each trade."""
    lengths = trades.exit_bar - trades.entry_bar + 1
    trade = np.repeat(np.arange(len(trades)), lengths)
    begun = np.cumsum(lengths) - lengths
    return trade, np.arange(len(trade)) - begun[trade] + trades.entry_bar[trade]


def _by_trade(
    traded: TradedMarket, of_bar: _Exposures, trade: Numbers, row: Numbers
) -> tuple[Floats, Floats]:
    """Net return and cost of each part, fractions of the equity before the bar."""
    trades = traded.result.trades
    follows = np.concatenate([trades.exit_bar[:-1] == trades.entry_bar[1:], [False]])[: len(trades)]
    closing = follows[trade] & (row == trades.exit_bar[trade])
    opening = np.roll(follows, 1)[trade] & (row == trades.entry_bar[trade])
    net = of_bar.net[row]
    cost = of_bar.cost[row]
    cost_of_old = _cost_of_leaving(traded, of_bar)[row]
    net_of_old = (of_bar.at_gap * of_bar.gap)[row] - cost_of_old
    return (
        np.where(closing, net_of_old, np.where(opening, net - net_of_old, net)),
        np.where(closing, cost_of_old, np.where(opening, cost - cost_of_old, cost)),
    )


def _cost_of_leaving(traded: TradedMarket, of_bar: _Exposures) -> Floats:
    """Costs of holding the position into each bar, and of closing it at the open."""
    costs = traded.market.terms.costs
    slippage = costs.slippage_bps / 10_000
    fee = costs.fee_bps / 10_000
    value = of_bar.at_gap * (1.0 + of_bar.gap)
    paid = np.abs(value) * (slippage + (1.0 - np.sign(value) * slippage) * fee)
    rates = traded.market.holding(traded.bars)
    if rates is None:
        return np.asarray(paid)
    return np.asarray(paid + np.maximum(value, 0.0) * rates.long + np.maximum(-value, 0.0) * rates.short)


def _entries(trades: Trades) -> Numbers:
    """`EntryReason` of each trade, shape (n_trades,)."""
    reasons = np.full(len(trades), int(EntryReason.FROM_FLAT))
    by_order = np.isin(trades.reason[:-1], (ExitReason.STOP_LOSS, ExitReason.TAKE_PROFIT, ExitReason.RUIN))
    flips = (trades.exit_bar[:-1] == trades.entry_bar[1:]) & ~by_order
    reasons[1:][by_order] = EntryReason.AFTER_ORDER
    reasons[1:][flips] = EntryReason.FLIP
    return reasons


def _volatility(bars: Bars) -> Floats:
    returns = pd.Series(np.log(bars.close)).diff()
    return np.asarray(returns.rolling(VOLATILITY_BARS).std().shift(1), dtype=np.float64)


def _split(bars: _Exposures) -> SplitBars:
    moved = (1.0 + bars.gap) * (1.0 + bars.session) - 1.0
    gross = bars.net + bars.cost
    selection = np.zeros(len(moved))
    sizing = np.zeros(len(moved))
    for symbol in np.unique(bars.symbol):
        rows = bars.symbol == symbol
        at_gap = bars.at_gap[rows]
        at_session = bars.at_session[rows]
        size = _mean_size(at_session)
        selection[rows] = float(at_session.mean()) * moved[rows]
        sizing[rows] = (at_gap - size * np.sign(at_gap)) * bars.gap[rows] + (
            at_session - size * np.sign(at_session)
        ) * bars.session[rows]
    return SplitBars(
        time=bars.time,
        capital=bars.capital,
        selection=selection * bars.weight,
        timing=(gross - selection - sizing) * bars.weight,
        sizing=sizing * bars.weight,
        cost=-bars.cost * bars.weight,
    )


def _mean_size(exposure: Floats) -> float:
    """Mean size of a position over the bars with one; 0 without a position."""
    sizes = np.abs(exposure[exposure != 0.0])
    return float(sizes.mean()) if len(sizes) else 0.0
