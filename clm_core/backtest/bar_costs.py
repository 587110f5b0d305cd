"""Costs of each bar of a backtest, as fractions of the equity before the bar."""

import numpy as np

from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.market.bars import Bars, Floats


def costs_by_bar(bars: Bars, result: Backtest, market: MarketTerms) -> Floats:
    """Fees, slippage and costs of holding paid in each bar over the equity before the bar, shape (n_bars,).

    A fill of value V pays V x (fee + slippage), exact up to the square of the slippage. A position held into
    a bar pays the value at the open times the rate of the side; negative costs were received.

    Args:
        bars: bars of the backtest, shape (n_bars,).
        result: backtest of the bars under the terms.
    """
    costs = market.terms.costs
    paid = result.turnover * ((costs.fee_bps + costs.slippage_bps) / 10_000)
    rates = market.holding(bars)
    if rates is None:
        return paid
    held = np.zeros(len(bars))
    held[1:] = result.exposure[:-1] * bars.open[1:] / bars.close[:-1]
    return np.asarray(paid + np.maximum(held, 0.0) * rates.long + np.maximum(-held, 0.0) * rates.short)
