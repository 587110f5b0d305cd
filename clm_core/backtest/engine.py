"""Backtest engine: target positions to fills, costs, equity and trades, in one loop over the bars.

Rules within a bar, in the order applied:

0.  A position held into the bar pays the costs of holding (funding, borrow, dividends; negative: receives):
    units x open x rate of its side, at most the equity at the open. Without rates holding is free. Trades,
    exits and targets of the bar come afterwards: a position opened at an open pays from the next bar on.
1.  Stop loss, take profit and liquidation are resting orders. A bar that opens beyond a resting order fills
    the order at the open, whatever the signal says.
2.  The target position of the close of bar t trades at the open of bar t + 1 when the target changes. A
    target of 1 is as many units as the equity can pay for at the open, costs included; -1 as many as the
    equity could buy back. A flip closes the old trade first and sizes the new trade by the remaining equity.
    An unchanged target keeps its exposure: with `Execution.rebalance_band`, a position whose exposure at an
    open (value over equity) is further than the band from the target trades to the target, and pays the
    costs of the difference; the trade goes on with its average entry. Without a band (None) an unchanged
    target keeps its number of units, and exposure drifts with the price: a short that loses grows.
3.  Stop loss, take profit and liquidation are then checked inside the bar, also in the bar of the entry,
    against the trade's average entry price. When both could fill, the stop fills.
4.  After an exit by a resting order the engine stays flat until the target is 0 or of the other sign.
5.  A position open after the last bar is closed at the last close. A target of 0 at the second to last bar
    closes the position at the last bar's open instead.

Every fill is moved against the order by the slippage and pays the fee on its value. A short is liquidated at
the price at which buying back takes all the cash, even when a bar opens beyond that price: the loss ends at
equity 0, and equity stays there. Costs of holding move the price; a long whose costs of holding made the cash
negative is liquidated likewise, at the price at which the sale just repays the cash.
"""

from collections.abc import Callable, Sequence
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
from clm_core.market.carry import HoldingRates

SIGNAL, STOP_LOSS, TAKE_PROFIT, END_OF_DATA, RUIN = (int(reason) for reason in ExitReason)

TRADE = np.dtype(
    [(field.name, "f8" if field.type is Floats else "i8") for field in fields(Trades)], align=True
)


class _Account:
    """Account of a run, a single row of dtype ACCOUNT; values and fees in cash, quantities in units."""

    cash: float
    units: float
    costs: float
    holding: float
    """Costs of holding paid so far; negative if more was received."""
    carried: float
    """Costs of holding paid by the open trade."""
    traded: float
    """Value traded in the current bar."""
    target: float
    """Latest target position."""
    blocked_side: float
    """Sign of the positions blocked after a stop, or 0."""
    floor: float
    """Price of the resting order below the market: fills at or below."""
    ceiling: float
    """Price of the resting order above the market: fills at or above."""
    liquidation: float
    """Price at which closing the position leaves no cash; 0 for a long that cannot be liquidated."""
    in_units: float
    in_value: float
    out_units: float
    out_value: float
    fees: float
    basis: float
    """Largest cost basis of the open trade."""
    entry_bar: int
    n_trades: int


ACCOUNT = np.dtype(
    [(name, "i8" if kind is int else "f8") for name, kind in _Account.__annotations__.items()], align=True
)


Rows = NDArray[np.void]


class _Market(NamedTuple):
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    long_rate: Floats
    """Cost of holding a long into each bar, a fraction of its value at the open; empty: free."""
    short_rate: Floats
    """Cost of holding a short into each bar; empty: free."""


class _Rules(NamedTuple):
    cash: float
    fee: float
    slippage: float
    stop_loss: float
    """Fraction of the entry price; inf for no order."""
    take_profit: float
    """Fraction of the entry price; inf for no order."""
    lot_size: float
    """Units; 0.0 for any quantity."""
    band: float
    """Largest drift of the exposure that is not traded back; inf for a fixed number of units."""


class _Record(NamedTuple):
    """Output arrays of a run, shape (n_bars,); a sweep reuses the arrays for every parameter set."""

    equity: Floats
    returns: Floats
    exposure: Floats
    turnover: Floats
    trades: Rows
    """Closed trades, dtype TRADE, shape (2 * n_bars,)."""
    account: Rows
    """Account of the run, dtype ACCOUNT, shape (1,)."""
    changes: NDArray[np.int64]
    """Bars whose target differs from that of the bar before, closed by n_bars, shape (n_bars,)."""


Range = tuple[float, float, float]

_compiled = njit(error_model="numpy")
# Called on every bar with arrays: a real call would count the references to the arrays each time.
_inlined = njit(error_model="numpy", inline="always")


@njit(cache=True, nogil=True, error_model="numpy")
def _sma_targets(prefix: Floats, params: Floats, targets: Floats) -> None:
    """Write the target position at the close of each bar, shape (n_bars,)."""
    fast = int(params[0])
    slow = int(params[1])
    below = params[2]
    n = len(targets)
    targets[: slow - 1] = 0.0
    if n < slow:
        return
    known = targets[slow - 1 :]
    now = prefix[slow:]
    before_fast = prefix[slow - fast : n + 1 - fast]
    before_slow = prefix[: n + 1 - slow]
    for row in range(len(known)):
        fast_sum = now[row] - before_fast[row]
        slow_sum = now[row] - before_slow[row]
        known[row] = 1.0 if fast_sum * slow > slow_sum * fast else below


@njit(cache=True, nogil=True, error_model="numpy")
def _threshold_targets(score: Floats, params: Floats, targets: Floats) -> None:
    """Write the target position at the close of each bar, shape (n_bars,)."""
    above = params[0]
    below = params[1]
    for bar in range(len(targets)):
        targets[bar] = 1.0 if score[bar] > above else (-1.0 if score[bar] < below else 0.0)


@_compiled
def _fill(account: _Account, side: float, quantity: float, price: float, rules: _Rules) -> float:
    """Book a fill of `quantity` bought (side 1) or sold (side -1), and return the value traded, in cash."""
    value = quantity * price * (1.0 + side * rules.slippage)
    fee = value * rules.fee
    account.cash -= side * value + fee
    account.fees += fee
    account.costs += fee + quantity * price * rules.slippage
    account.traded += value
    return value


@_compiled
def _place_resting_orders(account: _Account, rules: _Rules) -> None:
    """Place stop loss, take profit and liquidation for the position held."""
    if account.units == 0.0:
        account.floor = -np.inf
        account.ceiling = np.inf
        return
    entry = account.in_value / account.in_units
    if account.units > 0.0:
        account.floor = entry * (1.0 - rules.stop_loss)
        account.ceiling = entry * (1.0 + rules.take_profit)
        account.liquidation = 0.0
        # without costs of holding, cash below 0 is rounding
        if account.holding != 0.0 and account.cash < 0.0:
            sale = account.units * (1.0 - rules.slippage) * (1.0 - rules.fee)
            account.liquidation = -account.cash / sale
            account.floor = max(account.floor, account.liquidation)
    else:
        account.liquidation = account.cash / (-account.units * (1.0 + rules.slippage) * (1.0 + rules.fee))
        account.floor = entry * (1.0 - rules.take_profit)
        account.ceiling = min(entry * (1.0 + rules.stop_loss), account.liquidation)


@_compiled
def _enter(account: _Account, bar: int, units: float, price: float, rules: _Rules) -> None:
    """Open or enlarge a trade, to `units`."""
    if account.units == 0.0:
        account.entry_bar = bar
        account.in_units = 0.0
        account.in_value = 0.0
        account.out_units = 0.0
        account.out_value = 0.0
        account.fees = 0.0
        account.carried = 0.0
        account.basis = 0.0
    quantity = abs(units - account.units)
    account.in_value += _fill(account, np.sign(units), quantity, price, rules)
    account.in_units += quantity
    account.units = units
    account.basis = max(account.basis, abs(units) * account.in_value / account.in_units)
    _place_resting_orders(account, rules)


@_compiled
def _leave(account: _Account, units: float, price: float, rules: _Rules) -> None:
    """Reduce a trade to `units`, possibly 0."""
    quantity = abs(account.units - units)
    account.out_value += _fill(account, -np.sign(account.units), quantity, price, rules)
    account.out_units += quantity
    account.units = units
    _place_resting_orders(account, rules)


@_compiled
def _close(account: _Account, bar: int, price: float, reason: int, rules: _Rules, trades: Rows) -> None:
    direction = np.sign(account.units)
    _leave(account, 0.0, price, rules)
    trade = trades[account.n_trades]
    trade.entry_bar = account.entry_bar
    trade.exit_bar = bar
    trade.bars = bar - account.entry_bar
    trade.direction = int(direction)
    trade.entry_price = account.in_value / account.in_units
    trade.exit_price = account.out_value / account.out_units
    trade.pnl = direction * (account.out_value - account.in_value) - account.fees - account.carried
    trade.net_return = trade.pnl / account.basis
    trade.reason = reason
    account.n_trades += 1


@_compiled
def _exit(account: _Account, bar: int, prices: Range, rules: _Rules, trades: Rows) -> None:
    """Fill the resting order reached by the prices (open, high, low)."""
    open_, high, low = prices
    side = np.sign(account.units)
    if side > 0.0:
        stopped = low <= account.floor
        price = min(open_, account.floor) if stopped else max(open_, account.ceiling)
    else:
        stopped = high >= account.ceiling
        price = max(open_, account.ceiling) if stopped else min(open_, account.floor)
    reason = STOP_LOSS if stopped else TAKE_PROFIT
    if (side < 0.0 and price >= account.liquidation) or (side > 0.0 and price <= account.liquidation):
        price = account.liquidation
        reason = RUIN
    _close(account, bar, price, reason, rules, trades)
    if reason == RUIN:
        account.cash = 0.0
    account.target = 0.0
    account.blocked_side = side


@_compiled
def _charge(account: _Account, price: float, rate: float, rules: _Rules) -> None:
    """Pay the costs of holding the position into a bar, at most the equity at the open."""
    amount = min(abs(account.units) * price * rate, max(account.cash + account.units * price, 0.0))
    account.cash -= amount
    account.holding += amount
    account.carried += amount
    _place_resting_orders(account, rules)


@_compiled
def _units_for(target: float, equity: float, price: float, rules: _Rules) -> float:
    units = target * equity / (price * (1.0 + rules.slippage) * (1.0 + rules.fee))
    return np.trunc(units / rules.lot_size) * rules.lot_size if rules.lot_size > 0.0 else units


@_compiled
def _rebalance(account: _Account, bar: int, price: float, rules: _Rules, trades: Rows) -> None:
    """Trade to the account's target."""
    if account.units * account.target < 0.0:
        _close(account, bar, price, SIGNAL, rules, trades)
    units = _units_for(account.target, account.cash + account.units * price, price, rules)
    if abs(units) > abs(account.units):
        _enter(account, bar, units, price, rules)
    elif units == 0.0 and account.units != 0.0:
        _close(account, bar, price, SIGNAL, rules, trades)
    elif units != account.units:
        _leave(account, units, price, rules)


@_inlined
def _has_drifted(account: _Account, price: float, rules: _Rules) -> bool:
    """True if the exposure at a price is further than the band from the account's target."""
    if rules.band == np.inf or account.target == 0.0:
        return False
    held = account.units * price
    equity = account.cash + held
    return bool(abs(held - account.target * equity) > rules.band * equity)


@njit(cache=True, nogil=True, error_model="numpy")
def _find_changes(targets: Floats, changes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Write the bars whose target differs from that of the bar before, ascending, and then n_bars."""
    count = 0
    for bar in range(1, len(targets)):
        changes[count] = bar
        count += targets[bar] != targets[bar - 1]
    changes[count] = len(targets)
    return changes


@_compiled
def _open_account(account: _Account, rules: _Rules) -> None:
    account.cash = rules.cash
    account.costs = account.units = account.target = account.blocked_side = account.traded = 0.0
    account.holding = account.carried = 0.0
    account.n_trades = 0
    _place_resting_orders(account, rules)


@njit(cache=True, nogil=True, error_model="numpy")
def _run(  # noqa: PLR0912, PLR0915 (a call in the loop would count the references to the arrays)
    targets: Floats, rules: _Rules, market: _Market, record: _Record
) -> tuple[int, float, float]:
    """Loop over the bars on which something can happen, and passes over all bars for the series.

    Returns:
        Number of trades closed, costs paid in cash, and costs of holding paid in cash.
    """
    # taken out of the tuples before the loop: inside the loop, every bar would count references
    opens = market.open
    highs = market.high
    lows = market.low
    closes = market.close
    long_rates = market.long_rate
    short_rates = market.short_rate
    is_charged = len(long_rates) > 0
    equities = record.equity
    returns = record.returns
    exposures = record.exposure
    turnovers = record.turnover
    trades = record.trades
    account = record.account[0]
    _open_account(account, rules)
    turnovers[:] = 0.0
    changes = _find_changes(targets, record.changes)
    band = rules.band
    change = 0
    last = len(closes) - 1
    bar = 0
    while bar <= last:
        before = account.cash
        if account.units != 0.0:
            before += account.units * closes[bar - 1]
        price = opens[bar]
        if is_charged and account.units != 0.0:
            rate = long_rates[bar] if account.units > 0.0 else short_rates[bar]
            if rate != 0.0:
                _charge(account, price, rate, rules)
        if price <= account.floor or price >= account.ceiling:
            _exit(account, bar, (price, price, price), rules, trades)
        target = targets[bar - 1] if bar > 0 else 0.0
        if target * account.blocked_side <= 0.0:
            account.blocked_side = 0.0
            if target != account.target or _has_drifted(account, price, rules):
                account.target = target
                _rebalance(account, bar, price, rules, trades)
        # prices are read only where an order rests: reading them takes longer than computing
        if (account.floor > -np.inf and lows[bar] <= account.floor) or (
            account.ceiling < np.inf and highs[bar] >= account.ceiling
        ):
            _exit(account, bar, (price, highs[bar], lows[bar]), rules, trades)
        if bar == last and account.units != 0.0:
            _close(account, bar, closes[bar], END_OF_DATA, rules, trades)
        if account.traded > 0.0:
            turnovers[bar] = account.traded / before
            account.traded = 0.0
        # cash and units for now: the series are computed from them below
        cash = equities[bar] = account.cash
        units = exposures[bar] = account.units
        bar += 1
        quiet = bar
        # most bars of many rules: nothing happens until the target changes or a resting order is reached
        side = account.blocked_side
        if (units != 0.0 and is_charged) or (band != np.inf and account.target != 0.0):
            end = bar
        elif side != 0.0:
            end = bar
            while end <= last and targets[end - 1] * side > 0.0:
                end += 1
            bar = end
        elif targets[bar - 1] != account.target:
            end = bar
        else:
            while changes[change] < bar:
                change += 1
            # a change acts on the next bar, and a position is closed on the last bar
            end = min(changes[change] + 1, last if units != 0.0 else last + 1)
        floor = account.floor
        ceiling = account.ceiling
        if floor == -np.inf and ceiling == np.inf:
            bar = max(bar, end)
        while bar < end and not (
            opens[bar] <= floor or opens[bar] >= ceiling or lows[bar] <= floor or highs[bar] >= ceiling
        ):
            bar += 1
        # unsigned, so that the compiler need not count negative rows from the end
        for each in range(np.uint64(quiet), np.uint64(bar)):
            equities[each] = cash
            exposures[each] = units
    _write_series(rules.cash, closes, equities, returns, exposures)
    return account.n_trades, account.costs, account.holding


@njit(cache=True, nogil=True, error_model="numpy")
def _write_series(
    initial_cash: float, closes: Floats, equities: Floats, returns: Floats, exposures: Floats
) -> None:
    """Turn cash and units after each bar into equity and exposure, in place, and write the returns.

    Args:
        equities: cash after each bar, replaced by the equity, shape (n_bars,).
        exposures: units after each bar, replaced by the exposure, shape (n_bars,).
    """
    for bar in range(len(closes)):
        held = exposures[bar] * closes[bar]
        equity = equities[bar] + held
        equities[bar] = equity
        exposures[bar] = held / equity if held != 0.0 else 0.0
    returns[0] = equities[0] / initial_cash - 1.0 if initial_cash > 0.0 else 0.0
    for bar in range(1, len(equities)):
        before = equities[bar - 1]
        returns[bar] = equities[bar] / before - 1.0 if before > 0.0 else 0.0


def backtest(
    bars: Bars,
    positions: Floats,
    costs: Costs,
    execution: Execution,
    holding: HoldingRates | None = None,
) -> Backtest:
    """Trade target positions, decided at each close and filled at the next open.

    Args:
        bars: series to trade, n_bars long.
        positions: targets, shape (n_bars,), values in [-1, 1]: fractions of the equity, short below 0.
        costs: fee and slippage per side.
        execution: starting capital, stops, lot size and rebalancing.
        holding: costs of holding into each bar; None for free holding.

    Raises:
        InvalidPositions: a bar has no finite position in [-1, 1].
        NotEnoughBars: there are no bars.
    """
    targets = check_positions(bars, positions)
    record = _blank_record(len(bars))
    rules = _rules(costs, execution)
    n_trades, costs_paid, holding_costs = _run(targets, rules, _market(bars, holding), record)
    closed = record.trades[:n_trades]
    trades = Trades(**{field.name: closed[field.name].copy() for field in fields(Trades)})
    return Backtest(
        record.equity,
        record.returns,
        record.exposure,
        record.turnover,
        costs_paid,
        trades,
        holding_costs,
    )


class RepeatedBacktest:
    """Backtests of many target positions on the same bars, into the same arrays; not for several threads."""

    def __init__(
        self, bars: Bars, costs: Costs, execution: Execution, holding: HoldingRates | None = None
    ) -> None:
        """
        Args:
            bars: series to trade, n_bars long.
            costs: fee and slippage per side.
            execution: starting capital, stops, lot size and rebalancing.
            holding: costs of holding into each bar; None for free holding.

        Raises:
            NotEnoughBars: there are no bars.
        """
        self._market = _market(bars, holding)
        self._rules = _rules(costs, execution)
        self._record = _blank_record(len(bars))

    def run(self, targets: Floats) -> tuple[Floats, Rows]:
        """Returns per bar, shape (n_bars,), and closed trades, dtype TRADE, shape (n_trades,), equal to those
        of `backtest`; valid until the next run.

        Args:
            targets: positions in [-1, 1], shape (n_bars,), float64; not validated.
        """
        n_trades, _, _ = _run(targets, self._rules, self._market, self._record)
        return self._record.returns, self._record.trades[:n_trades]


@dataclass(frozen=True, eq=False)
class Family:
    """A compiled trading rule with the parameter sets of a sweep.

    Built by `sma_crossover` or `score_threshold`. Positions are computed for one set at a time.
    """

    bars: Bars
    write_targets: Callable[[Floats, Floats, Floats], None]
    """Compiled rule: writes the positions of a parameter set, given the series, the set and the place."""
    data: Floats
    """Series shared by all parameter sets, computed once, shape (n_bars,) or (n_bars + 1,)."""
    params: Floats
    """Shape (n_sets, n_parameters)."""


def sma_crossover(bars: Bars, fast: ArrayLike, slow: ArrayLike, below: ArrayLike = 0.0) -> Family:
    """Crossover of moving averages: long while the fast mean of closes is above the slow mean, else `below`.

    Args:
        bars: series to trade.
        fast: window of the fast mean in bars, at least 1, shape (n_sets,) or scalar.
        slow: window of the slow mean in bars, more than `fast`, shape (n_sets,) or scalar; the position is 0
            on the first `slow` - 1 bars.
        below: position in [-1, 1] while the fast mean is not above, shape (n_sets,) or scalar.

    Raises:
        InvalidTrainingParams: a window or position is out of range.
    """
    params = _parameter_sets(fast, slow, below)
    if not (
        (params[:, 0] >= 1).all()
        and (params[:, 0] < params[:, 1]).all()
        and (params[:, :2] == np.trunc(params[:, :2])).all()
        and (np.abs(params[:, 2]) <= 1).all()
    ):
        raise InvalidTrainingParams("give whole windows with 1 <= fast < slow, and below in [-1, 1]")
    # relative to the first close, so that a constant price sums to exactly zero
    prefix = np.concatenate(([0.0], np.cumsum(bars.close - bars.close[0])))
    return Family(bars, _sma_targets, prefix, params)


def score_threshold(bars: Bars, score: Floats, long_above: ArrayLike, short_below: ArrayLike) -> Family:
    """Thresholds on a score: long above `long_above`, short below `short_below`, else flat.

    Args:
        bars: series to trade.
        score: forecast known at each close, shape (n_bars,); a NaN gives a position of 0.
        long_above: threshold, shape (n_sets,) or scalar; inf never goes long.
        short_below: threshold, at most `long_above`, shape (n_sets,) or scalar; -inf never goes short.

    Raises:
        InvalidTrainingParams: the scores do not match the bars, or the thresholds cross.
    """
    params = _parameter_sets(long_above, short_below)
    if score.shape != (len(bars),) or not (params[:, 1] <= params[:, 0]).all():
        raise InvalidTrainingParams("give one score per bar, and thresholds with short_below <= long_above")
    return Family(bars, _threshold_targets, np.ascontiguousarray(score, dtype=np.float64), params)


def sweep(
    family: Family,
    costs: Costs,
    execution: Execution | Sequence[Execution],
    threads: int = 1,
    holding: HoldingRates | None = None,
) -> list[Metrics]:
    """Parameter sweep: metrics of every parameter set, in order, equal to `backtest` and `summarise` of each.

    Args:
        family: trading rule and parameter sets.
        costs: fee and slippage per side, for all sets.
        execution: rules for all sets, or a sequence of n_sets to sweep stops and targets as well.
        threads: number of threads; the result does not depend on the number.
        holding: costs of holding into each bar, for all sets; None for free holding.

    Raises:
        InvalidTrainingParams: the number of executions differs from the number of sets.
    """
    n_sets = len(family.params)
    if isinstance(execution, Execution):
        rules = [_rules(costs, execution)] * n_sets
    else:
        rules = [_rules(costs, each) for each in execution]
    if len(rules) != n_sets:
        raise InvalidTrainingParams(f"give a single execution, or one for each of {n_sets} sets")
    market = _market(family.bars, holding)
    periods_per_year = family.bars.periods_per_year
    # each thread takes the next set, so that all threads end within the time of a set
    sets = iter(range(n_sets))

    def measured_of_thread() -> list[tuple[int, Metrics]]:
        # reused for all sets of the thread: fresh memory costs as much as a pass over it
        record = _blank_record(len(family.bars))
        targets = np.empty(len(family.bars))
        return [(i, measured(i, record, targets)) for i in sets]

    def measured(i: int, record: _Record, targets: Floats) -> Metrics:
        family.write_targets(family.data, family.params[i], targets)
        n_trades, _, _ = _run(targets, rules[i], market, record)
        trade_returns = record.trades["net_return"][:n_trades].copy()
        return measure(record.returns, record.exposure, record.turnover, trade_returns, periods_per_year)

    # Threads over a compiled loop that releases the GIL: numba's own parallel loops abort the process when
    # two threads of the caller enter a loop at once.
    with ThreadPoolExecutor(threads) as pool:
        parts = [pool.submit(measured_of_thread) for _ in range(threads)]
        metrics = dict(numbered for part in parts for numbered in part.result())
    return [metrics[i] for i in range(n_sets)]


def _parameter_sets(*columns: ArrayLike) -> Floats:
    return np.column_stack(np.broadcast_arrays(*(np.atleast_1d(column) for column in columns))).astype(float)


def check_positions(bars: Bars, positions: Floats) -> Floats:
    """Positions as a contiguous float64 array, shape (n_bars,), after validation.

    Raises:
        InvalidPositions: the shape does not match the bars, or a value is NaN or outside [-1, 1].
    """
    # read-only positions would be another type of argument, for which the loop would be compiled anew
    targets = np.require(positions, np.float64, ["C", "W"])
    if targets.shape != (len(bars),):
        raise InvalidPositions(
            f"give one position for each of the {len(bars)} bars, not shape {targets.shape}"
        )
    if len(targets) and not (targets.min() >= -1.0 and targets.max() <= 1.0):
        wrong = np.flatnonzero(~(np.abs(targets) <= 1.0))
        raise InvalidPositions(
            f"positions lie in [-1, 1]; {len(wrong)} do not, the first {targets[wrong[0]]} at bar "
            f"{wrong[0]}. Clip the positions, and use 0 where the model has no view"
        )
    return targets


def _market(bars: Bars, holding: HoldingRates | None) -> _Market:
    """
    Raises:
        NotEnoughBars: there are no bars.
        ValueError: the rates belong to other bars.
    """
    if len(bars) == 0:
        raise NotEnoughBars("a backtest needs at least one bar; ask for a longer period")
    long_rate = short_rate = np.empty(0)
    if holding is not None:
        long_rate = holding.long
        short_rate = holding.short
        if not len(long_rate) == len(short_rate) == len(bars):
            raise ValueError(f"give a holding rate for each of the {len(bars)} bars, not {len(long_rate)}")
    arrays = (bars.open, bars.high, bars.low, bars.close, long_rate, short_rate)
    return _Market(*(np.ascontiguousarray(array, dtype=np.float64) for array in arrays))


def _rules(costs: Costs, execution: Execution) -> _Rules:
    return _Rules(
        cash=execution.initial_cash,
        fee=costs.fee_bps / 10_000,
        slippage=costs.slippage_bps / 10_000,
        stop_loss=np.inf if execution.stop_loss is None else execution.stop_loss,
        take_profit=np.inf if execution.take_profit is None else execution.take_profit,
        lot_size=0.0 if execution.lot_size is None else execution.lot_size,
        band=np.inf if execution.rebalance_band is None else execution.rebalance_band,
    )


def _blank_record(n_bars: int) -> _Record:
    # at most two trades end within a bar: the first at the open, by a stop or a signal, the second inside
    return _Record(
        equity=np.empty(n_bars),
        returns=np.empty(n_bars),
        exposure=np.empty(n_bars),
        turnover=np.empty(n_bars),
        trades=np.empty(2 * n_bars, TRADE),
        account=np.empty(1, ACCOUNT),
        changes=np.empty(n_bars, np.int64),
    )
