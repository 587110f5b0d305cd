"""Returns scaled to a stated volatility: results without the trader's choice of size.

The volatility is that of weekly returns, by the variance of sums over a week (Lo & MacKinlay 1988). A
drawdown adds up the returns of days and weeks: where losses follow losses, as in trend payoffs, the
volatility of single bars understates its depth; where returns revert, as by bid-ask bounce, overstates it.

Source:
    Lo & MacKinlay (1988), "Stock market prices do not follow random walks: evidence from a simple
        specification test", Review of Financial Studies 1(1).
"""

import math

import numpy as np

from clm_core.backtest.metrics import max_drawdown, volatility
from clm_core.market.bars import Floats

WEEKS_A_YEAR = 365.0 / 7.0
MIN_SPANS = 26
"""Least number of separate spans in a record, half a year of weeks: the volatility of independent returns
then has a standard error of 11 %, 1 / sqrt(3 MIN_SPANS)."""
REVERTED = 1e-9
"""Ratio of the weekly volatility to that of the bars below which the sums are rounding errors."""


def bars_a_week(periods_per_year: float) -> int:
    """Bars in a week, at least 1: 168 hours of a market that never closes, 5 days of equities.

    The number counts bars that exist: a week of a market that closes at weekends spans a weekend.
    """
    return max(round(periods_per_year / WEEKS_A_YEAR), 1)


def bars_summed(n_bars: int, periods_per_year: float) -> int:
    """Bars in a sum of `weekly_volatility`: a week, or n_bars / `MIN_SPANS` if that is shorter."""
    return max(min(bars_a_week(periods_per_year), n_bars // MIN_SPANS), 1)


def weekly_volatility(returns: Floats, periods_per_year: float) -> float:
    """Annualised standard deviation of the sums of q successive returns, q the bars of a week, a fraction.

    The root of periods_per_year / m times the sum of (x[k] + ... + x[k+q-1] - q mean(x)) ** 2 over all
    n - q + 1 overlapping spans, with m = q (n - q + 1) (1 - q / n), which makes the variance of independent
    returns unbiased (Lo & MacKinlay 1988). With q = 1, as for weekly bars, it equals `metrics.volatility`.

    Records shorter than `MIN_SPANS` weeks take shorter sums, see `bars_summed`, since the few weeks of such a
    record say little about their variance. NaN for fewer than two bars, returns not finite, constant returns,
    and returns that cancel out within every span.

    Args:
        returns: returns of a bar as fractions, shape (n_bars,).
        periods_per_year: bars in a year.
    """
    of_bars = volatility(returns, periods_per_year)
    if not 0.0 < of_bars < math.inf:
        return math.nan
    n = len(returns)
    q = bars_summed(n, periods_per_year)
    path = np.concatenate([[0.0], np.cumsum(returns - returns.mean())])
    squares = np.square(path[q:] - path[:-q]).sum()
    weekly = math.sqrt(periods_per_year * squares / (q * (n - q + 1) * (1.0 - q / n)))
    return weekly if weekly > REVERTED * of_bars else math.nan


def scaled_returns(returns: Floats, periods_per_year: float, target: float) -> Floats:
    """Returns times a constant factor, with the annualised `weekly_volatility` `target`, shape (n_bars,).

    NaN for returns without a weekly volatility.

    Args:
        returns: returns of a bar as fractions, shape (n_bars,).
        periods_per_year: bars in a year.
        target: annual volatility, a fraction.
    """
    return np.asarray(returns * (target / weekly_volatility(returns, periods_per_year)))


def scaled_drawdown(returns: Floats, periods_per_year: float, target: float) -> float:
    """Size of the maximum drawdown of the scaled returns, 0..1; 1.0 for a loss of all the capital.

    0.0 without a trade, NaN for returns without a weekly volatility.
    """
    if len(returns) and (returns == 0.0).all():
        return 0.0
    return min(abs(max_drawdown(scaled_returns(returns, periods_per_year, target))), 1.0)
