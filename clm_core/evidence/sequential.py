"""Sequential test of a strategy's daily returns: Page's cumulative sum of log-likelihood ratios (Page 1954).

With u the return of a day over its standard deviation, and D days in a year,

    L(t) = max(0, L(t - 1) + delta * (kappa - u(t)))
    delta = (healthy - losing) / sqrt(D),  kappa = (healthy + losing) / (2 sqrt(D))

for two annualised Sharpe ratios: `healthy`, at which alarms are false, and `losing`, for which the test is
tuned. L is the largest evidence for `losing` over all starts, in log-odds. An alarm is the first day on which
L reaches a threshold: a rule for any number of looks, unlike a probability looked at again and again.

The deviation is an exponential average of squared returns up to and including the day. Including the day
bounds u, so that heavy tails raise no more alarms than a normal distribution.
"""

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Floats

FIRST_LOOK = 20
"""Days before the first look; their mean square starts the average."""
VOLATILITY_HALF_LIFE = 60.0
"""Days."""
DAY = 86_400_000_000_000
"""Nanoseconds."""


def log_odds_of_loss(
    daily: Floats,
    healthy: float,
    losing: float,
    days_per_year: float,
    alarm: float = np.inf,
    settled_days: int = 0,
) -> Floats:
    """The statistic L after each day, shape of `daily`; 0 before the first look, and on days without returns
    so far.

    Args:
        daily: returns of complete days as fractions, days along the last axis, shape (..., n_days).
        healthy: annualised Sharpe ratio at which an alarm is false.
        losing: annualised Sharpe ratio to find, below `healthy`.
        days_per_year: days with returns in a year: 365 or about 252.
        alarm: threshold of L; an alarm on one of the settled days was answered, and L starts anew at 0.
        settled_days: number of days, the oldest, whose alarms were answered.
    """
    deviation = _deviation(daily)
    moving = deviation > 0
    units = np.divide(daily, deviation, out=np.zeros(daily.shape), where=moving)
    step = (healthy - losing) / np.sqrt(days_per_year)
    middle = (healthy + losing) / 2 / np.sqrt(days_per_year)
    evidence = np.where(moving, step * (middle - units), 0.0)
    statistic = np.zeros(daily.shape)
    current = np.zeros(daily.shape[:-1])
    for day in range(daily.shape[-1]):
        current = np.maximum(0.0, current + evidence[..., day])
        if day + 1 >= FIRST_LOOK:
            statistic[..., day] = current
            if day < settled_days:
                current = np.where(current >= alarm, 0.0, current)
    return statistic


def daily_returns(time: NDArray[np.int64], returns: Floats, bar: int) -> Floats:
    """Compound returns of the complete UTC days with bars, oldest first, shape (n_days,).

    Args:
        time: bar-open times, nanoseconds since 1970-01-01 UTC, ascending, shape (n_bars,).
        returns: simple returns of the bars, shape (n_bars,).
        bar: length of a bar in nanoseconds.
    """
    if not len(time):
        return np.zeros(0)
    days = time // DAY
    first = np.flatnonzero(np.diff(days, prepend=days[0] - 1))
    # -1 and less, ruin, has no logarithm
    logs = np.log1p(np.maximum(returns, -1 + 1e-12))
    compound = np.expm1(np.add.reduceat(logs, first))
    complete = time[-1] + bar >= (days[-1] + 1) * DAY
    return np.asarray(compound if complete else compound[:-1])


def days_before(time: NDArray[np.int64], row: int) -> int:
    """UTC days with bars before the day of a row; all days for a row after the last.

    Args:
        time: bar-open times, nanoseconds since 1970-01-01 UTC, ascending, shape (n_bars,).
    """
    days = np.unique(time // DAY)
    return len(days) if row >= len(time) else int(np.searchsorted(days, time[row] // DAY))


def days_per_year(time: NDArray[np.int64]) -> float:
    """UTC days with bars in a year of 365.25 days, over the span of the bars; NaN for fewer than two days.

    Args:
        time: bar-open times, nanoseconds since 1970-01-01 UTC, ascending, shape (n_bars,).
    """
    days = np.unique(time // DAY)
    return float("nan") if len(days) < 2 else (len(days) - 1) / (days[-1] - days[0]) * 365.25


def _deviation(daily: Floats) -> Floats:
    """Root of the exponential average of squares up to each day, shape of `daily`."""
    decay = 0.5 ** (1 / VOLATILITY_HALF_LIFE)
    squares = daily**2
    start = squares[..., :FIRST_LOOK].mean(axis=-1) if daily.shape[-1] else np.zeros(daily.shape[:-1])
    total = start * FIRST_LOOK
    weight = float(FIRST_LOOK)
    deviation = np.zeros(daily.shape)
    for day in range(daily.shape[-1]):
        total = total * decay + squares[..., day]
        weight = weight * decay + 1.0
        deviation[..., day] = np.sqrt(total / weight)
    return deviation
