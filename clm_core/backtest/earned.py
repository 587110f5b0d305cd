"""Returns earned by a position from execution to the execution of the next."""

import numpy as np

from clm_core.backtest.terms import MarketTerms
from clm_core.market.bars import Bars, Floats


def earned_returns(market: MarketTerms, bars: Bars) -> Floats:
    """Return of a position of 1 taken after each bar: from the open of the next bar to the open after that,
    of the last but one to the last close, less the costs of holding that depend on the side; shape
    (n_bars - 1,), as fractions.

    A long pays c and a short d for holding: the part (c - d) / 2 counts with the sign of the position. The
    part (c + d) / 2 is the same for positions of the same size at any time, and is left out.
    """
    ends = np.append(bars.open[2:], bars.close[-1:])
    returns = ends / bars.open[1:] - 1.0
    holding = market.holding(bars)
    if holding is not None:
        returns[:-1] -= (holding.long[2:] - holding.short[2:]) / 2.0
    return np.asarray(returns)
