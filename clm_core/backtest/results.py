"""Results of a backtest: equity, trades and metrics."""

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Floats


class ExitReason(IntEnum):
    """Reason for the exit of a trade."""

    SIGNAL = 0
    STOP_LOSS = 1
    TAKE_PROFIT = 2
    END_OF_DATA = 3
    RUIN = 4
    """Liquidation of a short: buying back would have taken all the cash. Equity is 0 from the bar on."""


@dataclass(frozen=True, eq=False)
class Trades:
    """Closed trades, arrays of shape (n_trades,).

    A trade runs from leaving flat, or flipping, to returning to flat, or flipping; changes of size in between
    belong to the trade.
    """

    entry_bar: NDArray[np.int64]
    """Row of the bar of the entry, at the open."""
    exit_bar: NDArray[np.int64]
    """Row of the bar of the exit."""
    direction: NDArray[np.int64]
    """1 long, -1 short."""
    entry_price: Floats
    """Average fill price of the entries, weighted by quantity."""
    exit_price: Floats
    """Average fill price of the exits, weighted by quantity."""
    net_return: Floats
    """Profit after costs over the largest value committed: the peak of units held x entry_price."""
    pnl: Floats
    """Profit after costs, the costs of holding included, in cash."""
    bars: NDArray[np.int64]
    """Bars held: exit_bar - entry_bar."""
    reason: NDArray[np.int64]
    """`ExitReason` of each trade."""

    def __len__(self) -> int:
        return len(self.pnl)

    @property
    def ended(self) -> int:
        """Number of trades ended by a signal or a resting order, not by the end of the data."""
        return int(np.count_nonzero(self.reason != ExitReason.END_OF_DATA))

    def __post_init__(self) -> None:
        for field in fields(self):
            getattr(self, field.name).setflags(write=False)


@dataclass(frozen=True, eq=False)
class PoolTrades(Trades):
    """Closed trades of the members of a pool."""

    symbol: NDArray[np.str_]
    """Market of each trade, shape (n_trades,)."""


LEAST_RETURN = -1.0 + 1e-12
"""Return of a bar that takes all the equity has no equity before, by division."""


@dataclass(frozen=True, eq=False)
class Backtest:
    """Result of a backtest."""

    equity: Floats
    """Cash plus the position at the close of each bar, shape (n_bars,)."""
    returns: Floats
    """Simple return of equity per bar, as a fraction, shape (n_bars,); the first against the initial cash."""
    exposure: Floats
    """Position value over equity at each close, signed, shape (n_bars,); 0.0 where equity is 0."""
    turnover: Floats
    """Value traded in each bar over the equity before the bar, shape (n_bars,)."""
    costs_paid: float
    """Fees and slippage, in cash."""
    trades: Trades
    holding_costs: float = 0.0
    """Funding, borrow and dividends paid, in cash, beside `costs_paid`; negative if more was received."""

    def __post_init__(self) -> None:
        for series in (self.equity, self.returns, self.exposure, self.turnover):
            series.setflags(write=False)

    @property
    def trade_returns(self) -> Floats:
        """Profit of each closed trade after costs over the equity before the bar of the entry, a fraction,
        shape (n_trades,): a trade counts by its size."""
        begun = self.equity[:1] / (1.0 + np.maximum(self.returns[:1], LEAST_RETURN))
        before = np.concatenate([begun, self.equity[:-1]])
        return np.asarray(self.trades.pnl / before[self.trades.entry_bar])


@dataclass(frozen=True)
class Metrics:
    """Performance metrics, defined in `backtest.metrics`; ratios are annualised."""

    total_return: float
    cagr: float
    volatility: float
    sharpe_ratio: float
    sortino_ratio: float
    calmar_ratio: float
    max_drawdown: float
    """Negative fraction, with the starting capital as the first peak; -1 where equity reached 0: ruin."""
    profit_factor: float
    """Gains over losses of the closed trades; inf without losses, NaN without trades."""
    win_rate: float
    """Share of the closed trades with a gain, 0..1; NaN without trades."""
    trades: int
    exposure: float
    """Mean absolute exposure, as a fraction of equity."""
    turnover: float
    """Traded value over equity per year."""
