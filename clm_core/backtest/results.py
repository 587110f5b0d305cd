"""What a backtest is asked and what it answers: execution rules, equity and trades."""

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Floats


class ExitReason(IntEnum):
    SIGNAL = 0
    STOP_LOSS = 1
    TAKE_PROFIT = 2
    END_OF_DATA = 3
    RUIN = 4
    """Buying back a short would have taken all the cash: equity is 0 from that bar on."""


@dataclass(frozen=True, eq=False)
class Trades:
    """Closed trades, one row each, shape (n_trades,). A trade runs from leaving flat (or flipping) to
    returning to flat (or flipping); changes of size in between belong to it."""

    entry_bar: NDArray[np.int64]
    """Row of the bar at whose open the trade began."""
    exit_bar: NDArray[np.int64]
    """Row of the bar in which it ended."""
    direction: NDArray[np.int64]
    """1 long, -1 short."""
    entry_price: Floats
    """Average fill price of everything bought into (or sold into) the trade."""
    exit_price: Floats
    """Average fill price of everything taken out of it."""
    net_return: Floats
    """Profit after costs over the largest value committed: units held x entry_price, at its peak."""
    pnl: Floats
    """Profit after costs in cash."""
    bars: NDArray[np.int64]
    """Bars held: exit_bar - entry_bar."""
    reason: NDArray[np.int64]
    """An `ExitReason`."""

    def __len__(self) -> int:
        return len(self.pnl)

    @property
    def ended(self) -> int:
        """Those that a signal, a stop or a target ended: not what merely was open after the last bar."""
        return int(np.count_nonzero(self.reason != ExitReason.END_OF_DATA))

    def __post_init__(self) -> None:
        for field in fields(self):
            getattr(self, field.name).setflags(write=False)


@dataclass(frozen=True, eq=False)
class Backtest:
    """Result of one run."""

    equity: Floats
    """Cash plus marked-to-close position after each bar, shape (n_bars,)."""
    returns: Floats
    """Simple return of equity per bar as a fraction, the first against the initial cash, shape (n_bars,)."""
    exposure: Floats
    """Position value over equity at each close, signed, shape (n_bars,); 0.0 where equity is 0."""
    turnover: Floats
    """Traded value in each bar over the equity before it, shape (n_bars,)."""
    costs_paid: float
    """Fees and slippage in cash."""
    trades: Trades

    def __post_init__(self) -> None:
        for series in (self.equity, self.returns, self.exposure, self.turnover):
            series.setflags(write=False)


@dataclass(frozen=True)
class Metrics:
    """Definitions are pinned in `backtest.metrics`; ratios are annualised."""

    total_return: float
    cagr: float
    volatility: float
    sharpe_ratio: float
    sortino_ratio: float
    calmar_ratio: float
    max_drawdown: float
    """Negative fraction, starting capital included."""
    profit_factor: float
    """Of closed trades; inf when none lost, NaN when there are no trades."""
    win_rate: float
    """Of closed trades; NaN when there are none."""
    trades: int
    exposure: float
    """Mean absolute exposure, fraction of equity."""
    turnover: float
    """Mean traded value over equity a year."""
