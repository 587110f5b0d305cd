"""A second backtest engine, plain and slow, written from the rules in the docstring of `backtest.engine`.

Costs of holding are computed here from the moments of payment themselves, not from rates per bar.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.execution import Execution
from clm_core.market.bars import Bars, Floats

HOUR = 3_600_000_000_000
YEAR_SECONDS = 365 * 86_400


@dataclass
class Trade:
    """Fills of a trade from flat to flat."""

    side: int
    entry_bar: int
    entries: list[tuple[float, float]] = field(default_factory=list)
    """Quantity and price of each entry."""
    exits: list[tuple[float, float]] = field(default_factory=list)
    fees: float = 0.0
    holding: float = 0.0
    basis: float = 0.0
    exit_bar: int = -1
    reason: str = ""

    @property
    def entry_price(self) -> float:
        return average(self.entries)

    @property
    def pnl(self) -> float:
        return self.side * (worth(self.exits) - worth(self.entries)) - self.fees - self.holding


def worth(fills: Sequence[tuple[float, float]]) -> float:
    return sum(quantity * price for quantity, price in fills)


def average(fills: Sequence[tuple[float, float]]) -> float:
    return worth(fills) / sum(quantity for quantity, _ in fills)


class ReferenceEngine:
    """An account that trades bar by bar."""

    def __init__(
        self,
        bars: Bars,
        costs: Costs,
        execution: Execution,
        holding: HoldingCosts,
        funding: Sequence[tuple[int, float]] = (),
        dividends: Sequence[tuple[int, float]] = (),
    ) -> None:
        self.bars = bars
        self.fee = costs.fee_bps / 10_000
        self.slippage = costs.slippage_bps / 10_000
        self.execution = execution
        self.holding = holding
        self.funding = funding
        self.dividends = dividends
        self.cash = execution.initial_cash
        self.units = 0.0
        self.trade: Trade | None = None
        self.trades: list[Trade] = []
        self.paid = 0.0
        self.held = 0.0
        self.equity: list[float] = []

    def run(self, targets: Floats) -> None:
        current = 0.0
        blocked = 0
        for bar in range(len(self.bars)):
            price = float(self.bars.open[bar])
            self.pay_for_holding(bar, price)
            side = self.exit_by_order(bar, price, price, price)
            if side:
                current = 0.0
                blocked = side
            target = float(targets[bar - 1]) if bar else 0.0
            if target * blocked <= 0:
                blocked = 0
                if target != current or self.has_drifted(target, price):
                    current = target
                    self.trade_to(bar, target, price)
            side = self.exit_by_order(bar, price, float(self.bars.high[bar]), float(self.bars.low[bar]))
            if side:
                current = 0.0
                blocked = side
            close = float(self.bars.close[bar])
            if bar == len(self.bars) - 1 and self.units:
                self.close(bar, close, "END_OF_DATA")
            self.equity.append(self.cash + self.units * close)

    def has_drifted(self, target: float, price: float) -> bool:
        """True if the exposure is further from an unchanged target than the band."""
        band = self.execution.rebalance_band
        equity = self.cash + self.units * price
        if band is None or target == 0 or equity <= 0:
            return False
        return abs(self.units * price / equity - target) > band

    def pay_for_holding(self, bar: int, price: float) -> None:
        if bar == 0 or self.units == 0:
            return
        since = int(self.bars.time[bar - 1])
        until = int(self.bars.time[bar])
        value = self.units * price
        due = sum(rate for moment, rate in self.funding if since < moment <= until) * value
        due += self.constant_funding(since, until) * value
        due -= sum(amount for moment, amount in self.dividends if since < moment <= until) * self.units
        if self.units < 0:
            seconds = (until - since) / 1e9
            due += -value * self.holding.borrow_bps_per_year / 10_000 * seconds / YEAR_SECONDS
        due = min(due, max(self.cash + value, 0.0))
        self.cash -= due
        self.held += due
        assert self.trade is not None
        self.trade.holding += due

    def constant_funding(self, since: int, until: int) -> float:
        """Sum of the constant rate at each 8 hours after `since` up to `until` without a stored rate."""
        rate = self.holding.funding_bps_per_8h / 10_000
        total = 0.0
        moment = (since // (8 * HOUR) + 1) * 8 * HOUR
        while moment <= until:
            if not any(moment - 8 * HOUR < stored <= moment for stored, _ in self.funding):
                total += rate
            moment += 8 * HOUR
        return total

    def orders(self) -> dict[str, float]:
        """Prices of the resting orders of the open position."""
        assert self.trade is not None
        entry = self.trade.entry_price
        side = self.trade.side
        orders = {}
        if self.execution.stop_loss is not None:
            orders["STOP_LOSS"] = entry * (1 - side * self.execution.stop_loss)
        if self.execution.take_profit is not None:
            orders["TAKE_PROFIT"] = entry * (1 + side * self.execution.take_profit)
        if side < 0:
            orders["RUIN"] = self.cash / (-self.units * (1 + self.slippage) * (1 + self.fee))
        elif self.cash < 0 and self.held != 0:
            orders["RUIN"] = -self.cash / (self.units * (1 - self.slippage) * (1 - self.fee))
        return orders

    def exit_by_order(self, bar: int, open_: float, high: float, low: float) -> int:
        """Side of the position closed by a resting order, or 0."""
        if self.units == 0:
            return 0
        assert self.trade is not None
        side = self.trade.side
        orders = self.orders()
        adverse = low if side > 0 else high
        favourable = high if side > 0 else low
        # the resting order nearest to the market is reached first
        losing = [price for name, price in orders.items() if name != "TAKE_PROFIT"]
        loss = side * max((side * price for price in losing), default=-math.inf)
        if side * (adverse - loss) <= 0:
            price = min(open_, loss) if side > 0 else max(open_, loss)
            if "RUIN" in orders and side * (price - orders["RUIN"]) <= 0:
                self.close(bar, orders["RUIN"], "RUIN")
                self.cash = 0.0
            else:
                self.close(bar, price, "STOP_LOSS")
            return side
        if "TAKE_PROFIT" in orders and side * (favourable - orders["TAKE_PROFIT"]) >= 0:
            level = orders["TAKE_PROFIT"]
            self.close(bar, max(open_, level) if side > 0 else min(open_, level), "TAKE_PROFIT")
            return side
        return 0

    def trade_to(self, bar: int, target: float, price: float) -> None:
        if self.units * target < 0:
            self.close(bar, price, "SIGNAL")
        equity = self.cash + self.units * price
        units = target * equity / (price * (1 + self.slippage) * (1 + self.fee))
        lot = self.execution.lot_size
        if lot is not None:
            units = int(units / lot) * lot
        if units == 0 and self.units:
            self.close(bar, price, "SIGNAL")
        elif abs(units) > abs(self.units):
            if self.trade is None:
                self.trade = Trade(1 if units > 0 else -1, bar)
            fill = self.fill(units - self.units, price)
            self.trade.entries.append(fill)
            self.trade.basis = max(self.trade.basis, abs(units) * self.trade.entry_price)
        elif units != self.units:
            assert self.trade is not None
            self.trade.exits.append(self.fill(units - self.units, price))

    def close(self, bar: int, price: float, reason: str) -> None:
        assert self.trade is not None
        self.trade.exits.append(self.fill(-self.units, price))
        self.trade.exit_bar = bar
        self.trade.reason = reason
        self.trades.append(self.trade)
        self.trade = None
        self.units = 0.0

    def fill(self, units: float, price: float) -> tuple[float, float]:
        """Buy units, or sell if negative; the quantity and the price paid."""
        assert self.trade is not None
        paid = price * (1 + self.slippage) if units > 0 else price * (1 - self.slippage)
        fee = abs(units) * paid * self.fee
        self.cash -= units * paid + fee
        self.units += units
        self.trade.fees += fee
        self.paid += fee + abs(units) * price * self.slippage
        return abs(units), paid
