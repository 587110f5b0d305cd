"""Turns wanted positions into fills, costs, equity and trades, in one pass over the bars.

The rules, in the order they apply within a bar:

1.  Stop loss, take profit and liquidation rest in the market. A bar that opens beyond one fills it at the
    open, whatever the signal says.
2.  The position wanted at the close of bar t trades at the open of bar t + 1, and only when it differs from
    the one wanted before: a target that stays does not rebalance as prices drift. A target of 1 is as many
    units as the equity can pay for at this open, costs included; -1 as many as it could buy back. A flip
    closes the old trade first and sizes the new one by what is left.
3.  Stop loss, take profit and liquidation are then checked inside the bar, also in the bar of the entry,
    against the trade's average entry price. When both could fill, the stop does.
4.  After such an exit the engine stays flat until the wanted position is 0 or of the other sign.
5.  What is open after the last bar is closed at its close. A 0 wanted at the second to last bar closes it at
    the last bar's open instead.

Every fill is moved against the order by the slippage and pays the fee on its value. A short is liquidated
at the price at which buying it back takes all the cash, even when a bar opens beyond it: the loss ends at
equity 0, and equity stays there.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from clm_core.backtest.metrics import measure
from clm_core.backtest.results import Backtest, ExitReason, Metrics, Trades
from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidPositions, InvalidTrainingParams, NotEnoughBars
from clm_core.domain.execution import Execution
from clm_core.market.bars import Bars, Floats

SIGNAL, STOP_LOSS, TAKE_PROFIT, END_OF_DATA, RUIN = (int(reason) for reason in ExitReason)

TRADE = np.dtype(
    [(field.name, "f8" if field.type is Floats else "i8") for field in fields(Trades)], align=True
)

GIVEN, SMA_CROSSOVER, SCORE_THRESHOLD = 0, 1, 2


class _Book:
    """State of a run, kept in one row of dtype BOOK; values and fees in cash, quantities in units."""

    cash: float
    units: float
    costs: float
    traded: float
    """Value traded in this bar so far."""
    target: float
    """The position wanted last."""
    shut: float
    """Sign of the position that stays shut after a stop, or 0."""
    floor: float
    """Price at or below which something rests in the market."""
    ceiling: float
    """Price at or above which something rests in the market."""
    liquidation: float
    """Price at which buying back the short takes all the cash; meaningless when not short."""
    in_units: float
    in_value: float
    out_units: float
    out_value: float
    fees: float
    basis: float
    """Largest cost basis of the open trade so far."""
    entry_bar: int
    n_trades: int


BOOK = np.dtype(
    [(name, "i8" if kind is int else "f8") for name, kind in _Book.__annotations__.items()], align=True
)


Rows = NDArray[np.void]


class _Market(NamedTuple):
    open: Floats
    high: Floats
    low: Floats
    close: Floats


class _Rules(NamedTuple):
    cash: float
    fee: float
    slippage: float
    stop_loss: float
    """inf: none."""
    take_profit: float
    """inf: none."""
    lot_size: float
    """0.0: any quantity."""


class _Record(NamedTuple):
    """What one run writes; a sweep writes every set over the last."""

    equity: Floats
    returns: Floats
    exposure: Floats
    turnover: Floats
    trades: Rows
    """Of dtype TRADE."""
    book: Rows
    """One row of dtype BOOK: the state of the run."""


Range = tuple[float, float, float]

_compiled = njit(error_model="numpy")
# Called on every bar with arrays: a real call would count their references each time.
_inlined = njit(error_model="numpy", inline="always")


@_inlined
def _sma_position(prefix: Floats, params: Floats, bar: int) -> float:
    fast, slow = int(params[0]), int(params[1])
    if bar + 1 < slow:
        return 0.0
    fast_sum = prefix[bar + 1] - prefix[bar + 1 - fast]
    slow_sum = prefix[bar + 1] - prefix[bar + 1 - slow]
    return 1.0 if fast_sum * slow > slow_sum * fast else params[2]


@_inlined
def _threshold_position(score: Floats, params: Floats, bar: int) -> float:
    if score[bar] > params[0]:
        return 1.0
    return -1.0 if score[bar] < params[1] else 0.0


@_inlined
def _wanted(rule: int, data: Floats, params: Floats, bar: int) -> float:
    """The position wanted at the close of a bar."""
    if rule == GIVEN:
        return float(data[bar])
    if rule == SMA_CROSSOVER:
        return _sma_position(data, params, bar)
    return _threshold_position(data, params, bar)


@_compiled
def _fill(book: _Book, side: float, quantity: float, price: float, rules: _Rules) -> float:
    """Pay or receive for `quantity` bought (side 1) or sold (side -1); the traded value."""
    value = quantity * price * (1.0 + side * rules.slippage)
    fee = value * rules.fee
    book.cash -= side * value + fee
    book.fees += fee
    book.costs += fee + quantity * price * rules.slippage
    book.traded += value
    return value


@_compiled
def _rest(book: _Book, rules: _Rules) -> None:
    """Place stop, target and liquidation for what is held now."""
    if book.units == 0.0:
        book.floor, book.ceiling = -np.inf, np.inf
        return
    entry = book.in_value / book.in_units
    if book.units > 0.0:
        book.floor = entry * (1.0 - rules.stop_loss)
        book.ceiling = entry * (1.0 + rules.take_profit)
    else:
        book.liquidation = book.cash / (-book.units * (1.0 + rules.slippage) * (1.0 + rules.fee))
        book.floor = entry * (1.0 - rules.take_profit)
        book.ceiling = min(entry * (1.0 + rules.stop_loss), book.liquidation)


@_compiled
def _enter(book: _Book, bar: int, units: float, price: float, rules: _Rules) -> None:
    """Start or enlarge a trade, to `units`."""
    if book.units == 0.0:
        book.entry_bar = bar
        book.in_units = book.in_value = book.out_units = book.out_value = book.fees = book.basis = 0.0
    quantity = abs(units - book.units)
    book.in_value += _fill(book, np.sign(units), quantity, price, rules)
    book.in_units += quantity
    book.units = units
    book.basis = max(book.basis, abs(units) * book.in_value / book.in_units)
    _rest(book, rules)


@_compiled
def _leave(book: _Book, units: float, price: float, rules: _Rules) -> None:
    """Reduce the trade to `units`, which may be none."""
    quantity = abs(book.units - units)
    book.out_value += _fill(book, -np.sign(book.units), quantity, price, rules)
    book.out_units += quantity
    book.units = units
    _rest(book, rules)


@_compiled
def _close(book: _Book, bar: int, price: float, reason: int, rules: _Rules, trades: Rows) -> None:
    direction = np.sign(book.units)
    _leave(book, 0.0, price, rules)
    trade = trades[book.n_trades]
    trade.entry_bar, trade.exit_bar, trade.bars = book.entry_bar, bar, bar - book.entry_bar
    trade.direction = int(direction)
    trade.entry_price = book.in_value / book.in_units
    trade.exit_price = book.out_value / book.out_units
    trade.pnl = direction * (book.out_value - book.in_value) - book.fees
    trade.net_return = trade.pnl / book.basis
    trade.reason = reason
    book.n_trades += 1


@_compiled
def _exit(book: _Book, bar: int, prices: Range, rules: _Rules, trades: Rows) -> None:
    """Fill what rests in the market at or beyond which these prices (open, high, low) went."""
    open_, high, low = prices
    side = np.sign(book.units)
    if side > 0.0:
        stopped = low <= book.floor
        price = min(open_, book.floor) if stopped else max(open_, book.ceiling)
    else:
        stopped = high >= book.ceiling
        price = max(open_, book.ceiling) if stopped else min(open_, book.floor)
    reason = STOP_LOSS if stopped else TAKE_PROFIT
    if side < 0.0 and price >= book.liquidation:
        price, reason = book.liquidation, RUIN
    _close(book, bar, price, reason, rules, trades)
    if reason == RUIN:
        book.cash = 0.0
    book.target, book.shut = 0.0, side


@_compiled
def _sized(wanted: float, equity: float, price: float, rules: _Rules) -> float:
    units = wanted * equity / (price * (1.0 + rules.slippage) * (1.0 + rules.fee))
    return np.trunc(units / rules.lot_size) * rules.lot_size if rules.lot_size > 0.0 else units


@_compiled
def _rebalance(book: _Book, bar: int, price: float, rules: _Rules, trades: Rows) -> None:
    """Trade to the book's target."""
    if book.units * book.target < 0.0:
        _close(book, bar, price, SIGNAL, rules, trades)
    units = _sized(book.target, book.cash + book.units * price, price, rules)
    if abs(units) > abs(book.units):
        _enter(book, bar, units, price, rules)
    elif units == 0.0 and book.units != 0.0:
        _close(book, bar, price, SIGNAL, rules, trades)
    elif units != book.units:
        _leave(book, units, price, rules)


@njit(cache=True, nogil=True, error_model="numpy")
def _run(
    rule: int, data: Floats, params: Floats, rules: _Rules, market: _Market, record: _Record
) -> tuple[int, float]:
    """The loop over the bars; answers with the trades made and the costs paid in cash."""
    # Out of their tuples before the loop: taking them out inside would count references on every bar.
    opens, highs, lows, closes = market.open, market.high, market.low, market.close
    equities, returns, exposures, turnovers = record.equity, record.returns, record.exposure, record.turnover
    trades = record.trades
    book = record.book[0]
    book.cash = equity = rules.cash
    book.costs = book.units = book.target = book.shut = book.traded = 0.0
    book.n_trades = 0
    _rest(book, rules)
    last = len(closes) - 1
    for bar in range(last + 1):
        before = equity
        price = opens[bar]
        if price <= book.floor or price >= book.ceiling:
            _exit(book, bar, (price, price, price), rules, trades)
        wanted = _wanted(rule, data, params, bar - 1) if bar > 0 else 0.0
        if wanted * book.shut <= 0.0:
            book.shut = 0.0
            if wanted != book.target:
                book.target = wanted
                _rebalance(book, bar, price, rules, trades)
        if lows[bar] <= book.floor or highs[bar] >= book.ceiling:
            _exit(book, bar, (price, highs[bar], lows[bar]), rules, trades)
        if bar == last and book.units != 0.0:
            _close(book, bar, closes[bar], END_OF_DATA, rules, trades)
        held = book.units * closes[bar]
        equity = book.cash + held
        equities[bar] = equity
        returns[bar] = equity / before - 1.0 if before > 0.0 else 0.0
        exposures[bar] = held / equity if held != 0.0 else 0.0
        turnovers[bar] = book.traded / before if book.traded > 0.0 else 0.0
        book.traded = 0.0
    return book.n_trades, book.costs


def backtest(bars: Bars, positions: Floats, costs: Costs, execution: Execution) -> Backtest:
    """Trade `positions`, shape (n_bars,) in [-1, 1], decided at each close and filled at the next open.

    Raises:
        InvalidPositions: not one finite value in [-1, 1] for every bar.
        NotEnoughBars: there are no bars.
    """
    wanted = checked(bars, positions)
    record = _blank_record(len(bars))
    n_trades, costs_paid = _run(GIVEN, wanted, wanted[:0], _rules(costs, execution), _market(bars), record)
    made = record.trades[:n_trades]
    trades = Trades(**{field.name: made[field.name].copy() for field in fields(Trades)})
    return Backtest(record.equity, record.returns, record.exposure, record.turnover, costs_paid, trades)


@dataclass(frozen=True, eq=False)
class Family:
    """A trading rule compiled into the engine's loop, and the parameter sets to try: no set's positions are
    ever stored. Made by `sma_crossover` or `score_threshold`."""

    bars: Bars
    rule: int
    data: Floats
    """What all sets share, computed once."""
    params: Floats
    """Shape (n_sets, n_parameters)."""


def sma_crossover(bars: Bars, fast: ArrayLike, slow: ArrayLike, below: ArrayLike = 0.0) -> Family:
    """Long while the mean of the last `fast` closes is above that of the last `slow`, else at `below`.

    Args:
        bars: the series to trade.
        fast: bars in the short mean, one a set, at least 1.
        slow: bars in the long mean, one a set, more than `fast`; the position is 0 for the first `slow` - 1.
        below: position in [-1, 1] while the short mean is not above, one a set or one for all.
    """
    params = _parameter_sets(fast, slow, below)
    if not (
        (params[:, 0] >= 1).all()
        and (params[:, 0] < params[:, 1]).all()
        and (params[:, :2] == np.trunc(params[:, :2])).all()
        and (np.abs(params[:, 2]) <= 1).all()
    ):
        raise InvalidTrainingParams("give whole windows with 1 <= fast < slow, and below in [-1, 1]")
    # measured from the first close, so that a price that stands still sums to exactly zero
    prefix = np.concatenate(([0.0], np.cumsum(bars.close - bars.close[0])))
    return Family(bars, SMA_CROSSOVER, prefix, params)


def score_threshold(bars: Bars, score: Floats, long_above: ArrayLike, short_below: ArrayLike) -> Family:
    """Long where a score is above `long_above`, short where it is below `short_below`, else flat.

    Args:
        bars: the series to trade.
        score: any forecast known at each close, shape (n_bars,); the position is 0 where it is NaN.
        long_above: one a set; inf never goes long.
        short_below: one a set, at most `long_above`; -inf never goes short.
    """
    params = _parameter_sets(long_above, short_below)
    if score.shape != (len(bars),) or not (params[:, 1] <= params[:, 0]).all():
        raise InvalidTrainingParams("give one score a bar, and thresholds with short_below <= long_above")
    return Family(bars, SCORE_THRESHOLD, np.ascontiguousarray(score, dtype=np.float64), params)


def sweep(
    family: Family, costs: Costs, execution: Execution | Sequence[Execution], threads: int = 1
) -> list[Metrics]:
    """Metrics of every parameter set, in order; the same as `backtest` and `summarise` one by one.

    Args:
        family: the rule and its parameter sets.
        costs: the same for all sets.
        execution: one for all sets, or one a set: stops and targets can be swept too.
        threads: how many cores to use; the result does not depend on it.
    """
    executions = [execution] * len(family.params) if isinstance(execution, Execution) else execution
    if len(executions) != len(family.params):
        raise InvalidTrainingParams(f"give one execution, or one for each of {len(family.params)} sets")
    market = _market(family.bars)
    periods_per_year = family.bars.periods_per_year

    def measured(sets: NDArray[np.int64]) -> list[Metrics]:
        record = _blank_record(len(family.bars))
        results = []
        for i in sets:
            rules = _rules(costs, executions[i])
            n_trades, _ = _run(family.rule, family.data, family.params[i], rules, market, record)
            trade_returns = record.trades["net_return"][:n_trades].copy()
            results.append(
                measure(record.returns, record.exposure, record.turnover, trade_returns, periods_per_year)
            )
        return results

    # Threads over a compiled loop that lets go of the GIL: numba's own parallel loops abort the process
    # when two threads of the caller enter them at once.
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(measured, np.array_split(np.arange(len(executions)), 8 * threads))
        return [metrics for part in parts for metrics in part]


def _parameter_sets(*columns: ArrayLike) -> Floats:
    return np.column_stack(np.broadcast_arrays(*(np.atleast_1d(column) for column in columns))).astype(float)


def checked(bars: Bars, positions: Floats) -> Floats:
    """Positions that these bars can be traded with.

    Raises:
        InvalidPositions: not one a bar, or one that is outside [-1, 1] or NaN.
    """
    wanted = np.ascontiguousarray(positions, dtype=np.float64)
    if wanted.shape != (len(bars),):
        raise InvalidPositions(
            f"give one position for each of the {len(bars)} bars, not shape {wanted.shape}"
        )
    wrong = np.flatnonzero(~(np.abs(wanted) <= 1.0))
    if len(wrong):
        raise InvalidPositions(
            f"positions lie in [-1, 1]; {len(wrong)} do not, the first {wanted[wrong[0]]} at bar {wrong[0]}. "
            "Clip them, and use 0 where the model has no view"
        )
    return wanted


def _market(bars: Bars) -> _Market:
    if len(bars) == 0:
        raise NotEnoughBars("a backtest needs at least one bar; ask for a longer period")
    return _Market(*(np.ascontiguousarray(x) for x in (bars.open, bars.high, bars.low, bars.close)))


def _rules(costs: Costs, execution: Execution) -> _Rules:
    return _Rules(
        cash=execution.initial_cash,
        fee=costs.fee_bps / 10_000,
        slippage=costs.slippage_bps / 10_000,
        stop_loss=np.inf if execution.stop_loss is None else execution.stop_loss,
        take_profit=np.inf if execution.take_profit is None else execution.take_profit,
        lot_size=0.0 if execution.lot_size is None else execution.lot_size,
    )


def _blank_record(n_bars: int) -> _Record:
    # at most one trade ends at a bar's open by signal and one inside it, and one more is stopped at the open
    return _Record(
        equity=np.empty(n_bars),
        returns=np.empty(n_bars),
        exposure=np.empty(n_bars),
        turnover=np.empty(n_bars),
        trades=np.empty(2 * n_bars, TRADE),
        book=np.empty(1, BOOK),
    )
