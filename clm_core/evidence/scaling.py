"""Returns scaled to a stated volatility: results without the trader's choice of size."""

import math

import numpy as np

from clm_core.backtest.metrics import max_drawdown, volatility
from clm_core.market.bars import Floats


def scaled_returns(returns: Floats, periods_per_year: float, target: float) -> Floats:
    """Returns times a constant factor, with the annualised volatility `target`, shape (n_bars,).

    NaN for returns without variation.

    Args:
        returns: returns of a bar as fractions, shape (n_bars,).
        periods_per_year: bars in a year.
        target: annual volatility, a fraction.
    """
    realised = volatility(returns, periods_per_year)
    return np.asarray(returns * (target / realised if realised > 0.0 else math.nan))


def scaled_drawdown(returns: Floats, periods_per_year: float, target: float) -> float:
    """Size of the maximum drawdown of the scaled returns, 0..1; 1.0 for a loss of all the capital.

    0.0 without a trade, NaN for returns not finite or without variation.
    """
    if len(returns) and (returns == 0.0).all():
        return 0.0
    return min(abs(max_drawdown(scaled_returns(returns, periods_per_year, target))), 1.0)
