"""Band of the equity to expect after days of trading, if a strategy goes on as in a measured record.

The log return of a day has mean m and standard deviation s over the n measured days. The log equity after t
days is normal with mean m t and variance s^2 (t + t^2 / n): the chance of the t days, and the error of the
measured mean, which is the same on every day. Days are taken as independent; at a level of 90 % one strategy
in ten lies outside on a given day, and more lie outside on any day of many.
"""

from dataclasses import dataclass

import numpy as np

from clm_core.evidence.track_record import NORMAL
from clm_core.market.bars import Floats

MIN_DAYS = 60
"""Days in a record, below which no band is computed."""


@dataclass(frozen=True)
class DailyGrowth:
    """Log returns of the days of a record."""

    mean: float
    deviation: float
    """Standard deviation, above 0."""
    days: int


@dataclass(frozen=True, eq=False)
class EquityBand:
    """Equity to expect, as multiples of the equity at the start, arrays of shape (n_moments,)."""

    low: Floats
    middle: Floats
    """Median."""
    high: Floats


def daily_growth(daily: Floats) -> DailyGrowth | None:
    """Growth of a record; None for fewer than 60 days, or returns that never vary.

    Args:
        daily: simple returns of successive calendar days, shape (n_days,); NaN for days without bars, which
            count as days without return.
    """
    if len(daily) < MIN_DAYS:
        return None
    # -1 and less, ruin, has no logarithm
    logs = np.log1p(np.maximum(np.nan_to_num(daily, nan=0.0), -1 + 1e-12))
    deviation = float(np.std(logs, ddof=1))
    if not deviation > 0:
        return None
    return DailyGrowth(float(np.mean(logs)), deviation, len(daily))


def equity_band(growth: DailyGrowth, days: Floats, level: float) -> EquityBand:
    """Band that holds the equity of a day with a probability.

    Args:
        days: calendar days since the start, not below 0, shape (n_moments,).
        level: probability, 0..1.
    """
    middle = growth.mean * days
    reach = NORMAL.inv_cdf((1.0 + level) / 2.0) * growth.deviation * np.sqrt(days + days**2 / growth.days)
    return EquityBand(np.exp(middle - reach), np.exp(middle), np.exp(middle + reach))
