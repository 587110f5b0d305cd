"""Properties of the backtest engine on random markets, and agreement with a slow reference engine."""

from dataclasses import astuple, dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.backtest.engine import backtest
from clm_core.backtest.results import Backtest, ExitReason
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.market.bars import Floats


class Fill(NamedTuple):
    bar: int
    quantity: float
    """Bought if positive, sold if negative."""
    price: float
    fee: float


class Row(NamedTuple):
    entry_bar: int
    exit_bar: int
    direction: int
    entry_price: float
    exit_price: float
    net_return: float
    pnl: float
    bars: int
    reason: int


@dataclass
class SlowEngine:
    """Reference implementation of the engine's rules, by plain lists of fills."""

    costs: Costs
    rules: Execution
    cash: float = 0.0
    fills: list[Fill] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    equity: list[float] = field(default_factory=list)
    target: float = 0.0
    blocked_side: float = 0.0

    @property
    def units(self) -> float:
        return sum(fill.quantity for fill in self.fills)

    @property
    def into(self) -> list[Fill]:
        return [fill for fill in self.fills if fill.quantity * self.fills[0].quantity > 0]

    @property
    def entry(self) -> float:
        return sum(f.quantity * f.price for f in self.into) / sum(f.quantity for f in self.into)

    @property
    def per_unit(self) -> float:
        """Cost of a unit per unit of price, with slippage and fee."""
        return (1 + self.costs.slippage_bps / 1e4) * (1 + self.costs.fee_bps / 1e4)

    def fill(self, bar: int, quantity: float, price: float) -> None:
        price *= 1 + np.sign(quantity) * self.costs.slippage_bps / 1e4
        fee = abs(quantity) * price * self.costs.fee_bps / 1e4
        self.fills.append(Fill(bar, quantity, price, fee))
        self.cash -= quantity * price + fee

    def basis(self) -> float:
        """Largest |units| x average entry price after any of the trade's entries."""
        held = 0.0
        bought = 0.0
        paid = 0.0
        largest = 0.0
        for fill in self.fills:
            held += fill.quantity
            if fill.quantity * self.fills[0].quantity > 0:
                bought += fill.quantity
                paid += fill.quantity * fill.price
                largest = max(largest, abs(held) * paid / bought)
        return largest

    def close(self, bar: int, price: float, reason: ExitReason) -> None:
        direction = int(np.sign(self.units))
        entry = self.entry
        basis = self.basis()
        self.fill(bar, -self.units, price)
        out = [f for f in self.fills if f not in self.into]
        exit_price = sum(f.quantity * f.price for f in out) / sum(f.quantity for f in out)
        pnl = -sum(f.quantity * f.price + f.fee for f in self.fills)
        first = self.fills[0].bar
        self.rows.append(
            Row(first, bar, direction, entry, exit_price, pnl / basis, pnl, bar - first, int(reason))
        )
        self.fills = []

    def protect(self, bar: int, opened: float, high: float, low: float) -> None:
        if not self.fills:
            return
        side = np.sign(self.units)
        adverse, favourable = (low, high) if side > 0 else (high, low)
        stop = self.entry * (1 - side * (self.rules.stop_loss or np.inf))
        take = self.entry * (1 + side * (self.rules.take_profit or np.inf))
        ruin = self.cash / (-self.units * self.per_unit) if side < 0 else -np.inf
        stop = side * max(side * stop, side * ruin)
        if side * adverse <= side * stop:
            price = side * min(side * opened, side * stop)
            reason = ExitReason.STOP_LOSS
        elif side * favourable >= side * take:
            price = side * max(side * opened, side * take)
            reason = ExitReason.TAKE_PROFIT
        else:
            return
        if side * price <= side * ruin:
            price = ruin
            reason = ExitReason.RUIN
        self.close(bar, price, reason)
        self.cash = 0.0 if reason is ExitReason.RUIN else self.cash
        self.target = 0.0
        self.blocked_side = side

    def drifted(self, opened: float) -> bool:
        equity = self.cash + self.units * opened
        if self.rules.rebalance_band is None or self.target == 0:
            return False
        return bool(abs(self.units * opened - self.target * equity) > self.rules.rebalance_band * equity)

    def follow(self, bar: int, target: float, opened: float) -> None:
        if self.blocked_side and np.sign(target) == self.blocked_side:
            return
        self.blocked_side = 0.0
        if target == self.target and not self.drifted(opened):
            return
        self.target = target
        if self.fills and np.sign(target) == -np.sign(self.units):
            self.close(bar, opened, ExitReason.SIGNAL)
        units = target * (self.cash + self.units * opened) / (opened * self.per_unit)
        if self.rules.lot_size:
            units = np.trunc(units / self.rules.lot_size) * self.rules.lot_size
        if units == 0 and self.fills:
            self.close(bar, opened, ExitReason.SIGNAL)
        elif units != self.units:
            self.fill(bar, units - self.units, opened)

    def run(self, prices: Floats, positions: Floats) -> None:
        self.cash = self.rules.initial_cash
        for bar, (opened, high, low, close) in enumerate(prices):
            self.protect(bar, opened, opened, opened)
            if bar > 0:
                self.follow(bar, positions[bar - 1], opened)
            self.protect(bar, opened, high, low)
            if bar == len(prices) - 1 and self.fills:
                self.close(bar, close, ExitReason.END_OF_DATA)
            self.equity.append(self.cash + self.units * close)


@st.composite
def markets(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Prices (open, high, low, close) with jumps of up to 40 %, and positions that often stay or return."""
    n = draw(st.integers(2, 25))
    steps = draw(st.lists(st.tuples(*[st.floats(-0.4, 0.4)] * 4), min_size=n, max_size=n))
    rows = []
    last = 100.0
    for gap, body, up, down in steps:
        opened = last * (1 + gap)
        last = opened * (1 + body)
        rows.append((opened, max(opened, last) * (1 + abs(up)), min(opened, last) * (1 - abs(down)), last))
    sizes = st.sampled_from([-1.0, -0.6, -0.3, 0.0, 0.25, 0.5, 1.0])
    return np.array(rows), np.array(draw(st.lists(sizes, min_size=n, max_size=n)))


costs = st.builds(Costs, fee_bps=st.sampled_from([0, 10, 100]), slippage_bps=st.sampled_from([0, 5, 100]))
executions = st.builds(
    Execution,
    initial_cash=st.just(1000.0),
    stop_loss=st.sampled_from([None, 0.05, 0.3]),
    take_profit=st.sampled_from([None, 0.05, 0.5]),
    lot_size=st.sampled_from([None, 0.3, 1.0]),
    rebalance_band=st.sampled_from([None, None, 0.01, 0.2]),
)
unhurried = settings(max_examples=150, deadline=None)


def trade_rows(result: Backtest) -> Floats:
    return np.column_stack(astuple(result.trades))


@unhurried
@given(markets(), costs, executions)
def test_the_engine_agrees_with_the_slow_engine_on_equity_and_trades(make_bars, market, costs, rules) -> None:
    prices, positions = market
    slow = SlowEngine(costs, rules)
    slow.run(prices, positions)
    fast = backtest(make_bars(prices), positions, costs, rules)
    assert fast.equity == pytest.approx(np.array(slow.equity), rel=1e-9, abs=1e-7)
    expected = np.array(slow.rows).reshape(-1, len(Row._fields))
    assert trade_rows(fast) == pytest.approx(expected, rel=1e-9, abs=1e-7)


@unhurried
@given(markets(), costs, executions)
def test_cash_plus_the_profits_of_all_trades_is_the_final_equity(make_bars, market, costs, rules) -> None:
    prices, positions = market
    result = backtest(make_bars(prices), positions, costs, rules)
    assert result.equity[-1] == pytest.approx(1000 + result.trades.pnl.sum(), rel=1e-9, abs=1e-7)
    assert np.prod(1 + result.returns) * 1000 == pytest.approx(result.equity[-1], rel=1e-9, abs=1e-7)
    assert (result.equity >= 0).all()
    assert result.costs_paid >= 0


@unhurried
@given(markets(), costs, executions, st.data())
def test_bars_after_t_change_nothing_up_to_t(make_bars, market, costs, rules, data) -> None:
    prices, positions = market
    t = data.draw(st.integers(0, len(prices) - 2))
    shocked = prices.copy()
    turned = positions.copy()
    shocked[t + 1 :] *= data.draw(st.sampled_from([0.1, 7.0]))
    turned[t:] = 1.0
    before, after = (
        backtest(make_bars(rows), targets, costs, rules)
        for rows, targets in ((prices, positions), (shocked, turned))
    )
    for name in ("equity", "returns", "exposure", "turnover"):
        assert (getattr(before, name)[: t + 1] == getattr(after, name)[: t + 1]).all()


@unhurried
@given(markets())
def test_buy_and_hold_without_costs_earns_the_price_ratio(make_bars, market) -> None:
    prices, _ = market
    result = backtest(make_bars(prices), np.ones(len(prices)), Costs(fee_bps=0, slippage_bps=0), Execution())
    assert result.equity[-1] / 10_000 == pytest.approx(prices[-1, 3] / prices[1, 0])


@unhurried
@given(markets(), executions, st.floats(0, 200), st.floats(0, 200))
def test_higher_costs_never_earn_more(make_bars, market, rules, fee, slippage) -> None:
    """Without lots, stops, shorts or a band, fills are the same and only the costs differ."""
    prices, positions = market
    free_running = Execution(initial_cash=rules.initial_cash)
    equity = [
        backtest(
            make_bars(prices),
            np.round(np.abs(positions)),
            Costs(fee_bps=times * fee, slippage_bps=times * slippage),
            free_running,
        ).equity[-1]
        for times in (0, 1, 2)
    ]
    assert all(high_cost <= low_cost * (1 + 1e-12) for low_cost, high_cost in pairwise(equity))


@unhurried
@given(markets(), costs, executions)
def test_trades_follow_each_other_and_never_overlap(make_bars, market, costs, rules) -> None:
    prices, positions = market
    trades = backtest(make_bars(prices), positions, costs, rules).trades
    assert (trades.entry_bar >= 1).all()
    assert (trades.exit_bar >= trades.entry_bar).all()
    assert (trades.entry_bar[1:] >= trades.exit_bar[:-1]).all()


@unhurried
@given(markets(), st.sampled_from([1e-6, 0.02, 0.2]))
def test_exposure_at_an_open_is_within_the_band_of_the_position(make_bars, market, band) -> None:
    """Bars without a range, so that the close is the open and no order fills in between."""
    prices, positions = market
    flat = np.repeat(prices[:, :1], 4, axis=1)
    free = Costs(fee_bps=0, slippage_bps=0)
    result = backtest(make_bars(flat), positions, free, Execution(rebalance_band=band))
    wrong = np.abs(result.exposure[1:-1] - positions[:-2]) > band + 1e-9
    # a short that was liquidated stays flat
    alive = result.equity[1:-1] > 0
    stopped = np.isin(np.arange(1, len(prices) - 1), result.trades.exit_bar)
    blocked = np.cumsum(stopped & (result.trades.reason == ExitReason.RUIN).any()) > 0
    assert not (wrong & alive & ~blocked).any()
