"""Account of reported fills: equity and returns from the prices and fees that were paid."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Bars, Floats
from clm_core.market.carry import HoldingRates


@dataclass(frozen=True, eq=False)
class BarFills:
    """Fills on the bars of a market in time order, arrays of shape (n_fills,)."""

    row: NDArray[np.int64]
    """Row of the bar that contains the fill, ascending."""
    change: Floats
    """Value bought or, below 0, sold, as a fraction of the equity at the open of the bar."""
    price: Floats
    fee: Floats
    """Fee as a fraction of the traded value."""


@dataclass(frozen=True, eq=False)
class RealisedAccount:
    """Account at the close of each bar, arrays of shape (n_bars,)."""

    equity: Floats
    """Equity as a multiple of the equity at the start; 0 from a ruin on."""
    exposure: Floats
    """Value of the position over the equity; 0 after a ruin."""


def realised_account(bars: Bars, fills: BarFills, holding: HoldingRates | None = None) -> RealisedAccount:
    """Account that begins flat with equity 1 and trades the fills.

    A fill of change c at price p buys c x equity / p units, with the equity at the open of the bar after the
    costs of holding into the bar, which the position held at the open pays as in a backtest.

    Args:
        bars: bars of the market, shape (n_bars,).
        fills: fills on rows of the bars.
        holding: costs of holding into each bar; None for free holding.
    """
    equity = np.ones(len(bars))
    value = np.zeros(len(bars))
    cash = 1.0
    units = 0.0
    rows, first = np.unique(fills.row, return_index=True)
    parts = dict(zip(rows.tolist(), pairwise([*first.tolist(), len(fills.row)]), strict=True))
    for start, end in pairwise([*rows.tolist(), len(bars)]):
        cash -= float(_carried(bars, units, holding, start, start + 1).sum())
        at_open = cash + units * bars.open[start]
        own = slice(*parts[start])
        traded = fills.change[own] * at_open
        units += float(np.sum(traded / fills.price[own]))
        cash -= float(np.sum(traded + np.abs(traded) * fills.fee[own]))
        paid = np.concatenate([[0.0], _carried(bars, units, holding, start + 1, end)])
        left = cash - np.cumsum(paid)
        value[start:end] = units * bars.close[start:end]
        equity[start:end] = left + value[start:end]
        cash = float(left[-1])
    ruined = np.maximum.accumulate(equity <= 0.0)
    equity = np.where(ruined, 0.0, equity)
    exposure = np.divide(value, equity, out=np.zeros(len(bars)), where=~ruined)
    return RealisedAccount(equity, exposure)


def _carried(bars: Bars, units: float, holding: HoldingRates | None, start: int, end: int) -> Floats:
    """Costs of holding units into bars, in units of the equity at the start, shape (end - start,)."""
    if holding is None or units == 0.0:
        return np.zeros(end - start)
    rates = holding.long if units > 0.0 else holding.short
    return np.asarray(abs(units) * bars.open[start:end] * rates[start:end])
