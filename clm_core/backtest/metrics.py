"""Performance metrics of a backtest, defined here only.

`returns` are simple returns per bar, shape (n_bars,), as fractions (0.01 is 1 %); `periods_per_year` is the
number of bars in a year: 8760 for hourly crypto, 252 for daily equities. A NaN among the returns, or an empty
array, gives NaN: nothing was measured, and no gate lets a NaN pass.
"""

import numpy as np
from numba import njit

from clm_core.backtest.results import Backtest, Metrics
from clm_core.market.bars import Floats
from clm_core.market.rolling import read_only

# reassoc allows vectorised sums, but only in loops over indices (not over values); NaN and infinity keep
# their meaning
_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
# Copied into the caller. A call of a cached function may reach another compilation of the same function, with
# another order of summation, than the call in the process that compiled the caller.
_inlined = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"}, inline="always")


def total_return(returns: Floats) -> float:
    """Compounded return over the whole period, as a fraction."""
    return _growth_and_drawdown(returns)[0] - 1.0


def cagr(returns: Floats, periods_per_year: float) -> float:
    """Compound annual growth rate: growth ** (periods_per_year / n_bars) - 1, as a fraction.

    Over short periods, a few good bars extrapolate to absurd or infinite values.
    """
    return _cagr(_growth_and_drawdown(returns)[0], len(returns), periods_per_year)


def volatility(returns: Floats, periods_per_year: float) -> float:
    """Annualised standard deviation of the returns (n - 1); NaN for fewer than two bars."""
    return _volatility(_deviation(returns), periods_per_year)


def sharpe_ratio(returns: Floats, periods_per_year: float) -> float:
    """Annualised mean over standard deviation (n - 1), risk-free rate zero (Sharpe 1994).

    0.0 for constant returns: a flat strategy has earned nothing. NaN for fewer than two bars.
    """
    return _sharpe(_mean(returns), _deviation(returns), periods_per_year)


def sortino_ratio(returns: Floats, periods_per_year: float) -> float:
    """Annualised mean over downside deviation, target zero (Sortino & Price 1994).

    The downside deviation is the root of the mean, over all n bars, of the squared negative returns. The
    ratio is 0.0 for a mean of zero, inf for gains without a losing bar.
    """
    return _sortino(_mean(returns), _downside(returns), periods_per_year)


def max_drawdown(returns: Floats) -> float:
    """Deepest fall of compounded equity below the running peak, as a negative fraction; 0.0 without a fall.

    The starting capital is the first peak, so a loss in the first bar counts.
    """
    return _growth_and_drawdown(returns)[1]


def calmar_ratio(returns: Floats, periods_per_year: float) -> float:
    """CAGR over the size of the maximum drawdown (Young 1991), over the whole period.

    0.0 for an unchanged equity, inf for growth without a drawdown.
    """
    growth, drawdown = _growth_and_drawdown(returns)
    return _calmar(_cagr(growth, len(returns), periods_per_year), drawdown)


@_inlined
def profit_factor(trade_returns: Floats) -> float:
    """Sum of the gains over the sum of the losses; inf without losses, NaN without gains and losses.

    Args:
        trade_returns: net returns of the closed trades, shape (n_trades,), as fractions.
    """
    gains = 0.0
    losses = 0.0
    for value in trade_returns:
        if value > 0.0:
            gains += value
        else:
            losses -= value
    return gains / losses


@_inlined
def win_rate(trade_returns: Floats) -> float:
    """Share of the trades with a gain, 0..1; a return of exactly zero is no gain. NaN without trades.

    Args:
        trade_returns: net returns of the closed trades, shape (n_trades,), as fractions.
    """
    wins = 0.0
    for value in trade_returns:
        if value > 0.0:
            wins += 1.0
        elif not value <= 0.0:
            return np.nan
    return wins / len(trade_returns)


@_inlined
def mean_exposure(exposure: Floats) -> float:
    """Mean absolute position value over equity at the closes, as a fraction.

    Args:
        exposure: signed position value over equity at each close, shape (n_bars,).
    """
    total = 0.0
    for i in range(len(exposure)):
        total += abs(exposure[i])
    return total / len(exposure)


def annual_turnover(turnover: Floats, periods_per_year: float) -> float:
    """Traded value over equity per year: 2.0 is a full position bought and sold once a year.

    Args:
        turnover: value traded in each bar over the equity before the bar, shape (n_bars,).
    """
    return _mean(turnover) * periods_per_year


def summarise(backtest: Backtest, periods_per_year: float) -> Metrics:
    """All metrics of a backtest; profit factor and win rate count the closed trades."""
    return measure(
        backtest.returns,
        backtest.exposure,
        backtest.turnover,
        backtest.trades.net_return,
        periods_per_year,
    )


def measure(
    returns: Floats, exposure: Floats, turnover: Floats, trade_returns: Floats, periods_per_year: float
) -> Metrics:
    """All metrics, from the series of a backtest (n_bars,) and the net returns of its trades (n_trades,)."""
    return Metrics(
        *_measured(
            read_only(returns),
            read_only(exposure),
            read_only(turnover),
            read_only(trade_returns),
            periods_per_year,
        )
    )


@_compiled
def _measured(
    returns: Floats, exposure: Floats, turnover: Floats, trade_returns: Floats, periods_per_year: float
) -> tuple[float, float, float, float, float, float, float, float, float, int, float, float]:
    """Values in the order of `Metrics`; a single compiled call, so that threads seldom wait for the GIL."""
    mean = _mean(returns)
    deviation = _deviation(returns)
    growth, drawdown = _growth_and_drawdown(returns)
    yearly = _cagr(growth, len(returns), periods_per_year)
    return (
        growth - 1.0,
        yearly,
        _volatility(deviation, periods_per_year),
        _sharpe(mean, deviation, periods_per_year),
        _sortino(mean, _downside(returns), periods_per_year),
        _calmar(yearly, drawdown),
        drawdown,
        profit_factor(trade_returns),
        win_rate(trade_returns),
        len(trade_returns),
        mean_exposure(exposure),
        _mean(turnover) * periods_per_year,
    )


@_inlined
def _mean(values: Floats) -> float:
    total = 0.0
    for i in range(len(values)):
        total += values[i]
    return total / len(values)


@_inlined
def _deviation(values: Floats) -> float:
    """Standard deviation (n - 1); exactly 0.0 for constant values, NaN for fewer than two values."""
    total = 0.0
    for i in range(len(values)):
        total += values[i] - values[0]
    centre = total / len(values)
    squares = 0.0
    for i in range(len(values)):
        squares += (values[i] - values[0] - centre) ** 2
    deviation = float(np.sqrt(squares / max(len(values) - 1, 0)))
    # rounding error of constant values, summed in another order
    return 0.0 if len(values) > 1 and deviation <= 1e-13 * abs(values[0]) else deviation


@_inlined
def _downside(values: Floats) -> float:
    squares = 0.0
    for i in range(len(values)):
        squares += min(values[i], 0.0) ** 2
    return float(np.sqrt(squares / len(values)))


@_inlined
def _growth_and_drawdown(returns: Floats) -> tuple[float, float]:
    equity = 1.0
    peak = 1.0
    lowest = 1.0
    for i in range(len(returns)):
        equity *= 1.0 + returns[i]
        peak = max(peak, equity)
        # written as `not (>=)` so that a NaN is kept instead of being skipped
        if not equity >= lowest * peak:
            lowest = equity / peak
    return (equity, lowest - 1.0) if len(returns) > 0 else (np.nan, np.nan)


@_inlined
def _cagr(growth: float, n_bars: int, periods_per_year: float) -> float:
    return float(growth ** (periods_per_year / n_bars) - 1.0)


@_inlined
def _volatility(deviation: float, periods_per_year: float) -> float:
    return float(deviation * np.sqrt(periods_per_year))


@_inlined
def _sharpe(mean: float, deviation: float, periods_per_year: float) -> float:
    return 0.0 if deviation == 0.0 else float(mean / deviation * np.sqrt(periods_per_year))


@_inlined
def _sortino(mean: float, downside: float, periods_per_year: float) -> float:
    return 0.0 if mean == 0.0 else float(mean / downside * np.sqrt(periods_per_year))


@_inlined
def _calmar(yearly: float, drawdown: float) -> float:
    return 0.0 if yearly == 0.0 else yearly / abs(drawdown)
