"""What a backtest's returns are worth: every number CLM judges by, defined once.

Returns are simple returns per bar as fractions (0.01 is 1 %), shape (n_bars,); `periods_per_year` is the
number of bars in a year (8760 for hourly crypto, 252 for daily equities). A NaN among the returns, or no
returns at all, gives NaN: nothing was measured, and no gate lets a NaN pass.
"""

import numpy as np
from numba import njit

from clm_core.backtest.results import Backtest, Metrics
from clm_core.market.bars import Floats

# reassoc lets sums run in vector registers, which loops over indices (not over values) make use of; NaN and
# infinity keep their meaning.
_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})


def total_return(returns: Floats) -> float:
    """Compounded return over the whole period, as a fraction."""
    return _growth_and_drawdown(returns)[0] - 1.0


def cagr(returns: Floats, periods_per_year: float) -> float:
    """Compound annual growth rate: growth ** (periods_per_year / n_bars) - 1, as a fraction.

    A few good bars extrapolate to absurd or infinite values; read it only over long periods.
    """
    return _cagr(_growth_and_drawdown(returns)[0], len(returns), periods_per_year)


def volatility(returns: Floats, periods_per_year: float) -> float:
    """Annualised standard deviation of the returns, with n - 1; NaN for fewer than two bars."""
    return _volatility(_deviation(returns), periods_per_year)


def sharpe_ratio(returns: Floats, periods_per_year: float) -> float:
    """Annualised mean over standard deviation (n - 1), risk-free rate zero (Sharpe 1994).

    0.0 when the returns never vary: a flat strategy has earned nothing. NaN for fewer than two bars.
    """
    return _sharpe(_mean(returns), _deviation(returns), periods_per_year)


def sortino_ratio(returns: Floats, periods_per_year: float) -> float:
    """Annualised mean over downside deviation, target zero (Sortino & Price 1994).

    The downside deviation is the root of the mean, over all n bars, of the squared negative returns.
    0.0 when the mean is zero, inf when no bar lost and some earned.
    """
    return _sortino(_mean(returns), _downside(returns), periods_per_year)


def max_drawdown(returns: Floats) -> float:
    """Deepest fall of compounded equity below its running peak, as a negative fraction; 0.0 if it never fell.

    The starting capital is the first peak, so a loss in the first bar counts.
    """
    return _growth_and_drawdown(returns)[1]


def calmar_ratio(returns: Floats, periods_per_year: float) -> float:
    """CAGR over the size of the maximum drawdown (Young 1991), over the whole period.

    0.0 when nothing was earned or lost, inf when equity never fell and some was earned.
    """
    growth, drawdown = _growth_and_drawdown(returns)
    return _calmar(_cagr(growth, len(returns), periods_per_year), drawdown)


@_compiled
def profit_factor(trade_returns: Floats) -> float:
    """Sum of the gains over the sum of the losses, shape (n_trades,).

    inf when none lost and some gained; NaN without trades or when all ended at exactly zero.
    """
    gains, losses = 0.0, 0.0
    for value in trade_returns:
        if value > 0.0:
            gains += value
        else:
            losses -= value
    return gains / losses


@_compiled
def win_rate(trade_returns: Floats) -> float:
    """Share of trades that gained, 0..1; one that ended at exactly zero did not. NaN without trades."""
    wins = 0.0
    for value in trade_returns:
        if value > 0.0:
            wins += 1.0
        elif not value <= 0.0:
            return np.nan
    return wins / len(trade_returns)


@_compiled
def mean_exposure(exposure: Floats) -> float:
    """Mean size of the position over equity at the closes, long and short alike, as a fraction."""
    total = 0.0
    for i in range(len(exposure)):
        total += abs(exposure[i])
    return total / len(exposure)


def annual_turnover(turnover: Floats, periods_per_year: float) -> float:
    """Traded value over equity a year: 2.0 is one full position bought and sold once a year."""
    return _mean(turnover) * periods_per_year


def summarise(backtest: Backtest, periods_per_year: float) -> Metrics:
    """All metrics of one backtest; profit factor and win rate are of its closed trades."""
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
    """All metrics of the series of a backtest and the net returns of its trades."""
    return Metrics(
        *_measured(
            _read_only(returns),
            _read_only(exposure),
            _read_only(turnover),
            _read_only(trade_returns),
            periods_per_year,
        )
    )


def _read_only(values: Floats) -> Floats:
    """numba compiles one version for arrays that may be written and another for those that may not, and the
    two may add up in different orders: with one of them the same returns always give the same metrics."""
    view = values.view()
    view.setflags(write=False)
    return view


@_compiled
def _measured(
    returns: Floats, exposure: Floats, turnover: Floats, trade_returns: Floats, periods_per_year: float
) -> tuple[float, float, float, float, float, float, float, float, float, int, float, float]:
    """In the order of `Metrics`: one compiled call, so that threads of a sweep seldom wait for the GIL."""
    mean, deviation = _mean(returns), _deviation(returns)
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


@_compiled
def _mean(values: Floats) -> float:
    total = 0.0
    for i in range(len(values)):
        total += values[i]
    return total / len(values)


@_compiled
def _deviation(values: Floats) -> float:
    """Standard deviation with n - 1; exactly 0.0 for values that are all the same, NaN for fewer than two."""
    total = 0.0
    for i in range(len(values)):
        total += values[i] - values[0]
    centre = total / len(values)
    squares = 0.0
    for i in range(len(values)):
        squares += (values[i] - values[0] - centre) ** 2
    deviation = float(np.sqrt(squares / max(len(values) - 1, 0)))
    # what is left of equal values when their sum is taken in another order
    return 0.0 if len(values) > 1 and deviation <= 1e-13 * abs(values[0]) else deviation


@_compiled
def _downside(values: Floats) -> float:
    squares = 0.0
    for i in range(len(values)):
        squares += min(values[i], 0.0) ** 2
    return float(np.sqrt(squares / len(values)))


@_compiled
def _growth_and_drawdown(returns: Floats) -> tuple[float, float]:
    equity, peak, lowest = 1.0, 1.0, 1.0
    for i in range(len(returns)):
        equity *= 1.0 + returns[i]
        peak = max(peak, equity)
        # Written as `not (>=)` so that a NaN is kept instead of being skipped.
        if not equity >= lowest * peak:
            lowest = equity / peak
    return (equity, lowest - 1.0) if len(returns) > 0 else (np.nan, np.nan)


@_compiled
def _cagr(growth: float, n_bars: int, periods_per_year: float) -> float:
    return float(growth ** (periods_per_year / n_bars) - 1.0)


@_compiled
def _volatility(deviation: float, periods_per_year: float) -> float:
    return float(deviation * np.sqrt(periods_per_year))


@_compiled
def _sharpe(mean: float, deviation: float, periods_per_year: float) -> float:
    return 0.0 if deviation == 0.0 else float(mean / deviation * np.sqrt(periods_per_year))


@_compiled
def _sortino(mean: float, downside: float, periods_per_year: float) -> float:
    return 0.0 if mean == 0.0 else float(mean / downside * np.sqrt(periods_per_year))


@_compiled
def _calmar(yearly: float, drawdown: float) -> float:
    return 0.0 if yearly == 0.0 else yearly / abs(drawdown)
