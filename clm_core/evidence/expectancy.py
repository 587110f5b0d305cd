"""Expectancy of a trade after costs, with a lower confidence bound by the studentised bootstrap.

The expectancy is the mean profit of a trade over the equity at the entry: a trade counts by its size.
Resamples draw whole trades with replacement; the bound comes from the resamples' t statistics (Hall 1992,
"The bootstrap and Edgeworth expansion", section 3.2), as percentiles of the means are too high for payoffs of
many small gains and few large losses: docs/decisions/0053-payoff-as-a-whole.md has the coverage of both.
"""

import math
from dataclasses import dataclass

import numpy as np

from clm_core.evidence.bootstrap import resampled_moments
from clm_core.evidence.track_record import standardised
from clm_core.market.bars import Floats

MIN_TRADES = 50
"""Minimum number of trades for a bound: with fewer, rare losses are too often absent from the sample."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Expectancy:
    trades: int
    mean: float
    """Mean return of a trade, a fraction; NaN without a trade."""
    low: float
    """Lower bound of the expectancy; NaN for fewer than `MIN_TRADES`, constant or non-finite returns."""


def expectancy(trade_returns: Floats, confidence: float, seed: int, resamples: int = RESAMPLES) -> Expectancy:
    """Mean return of a trade, and the bound below which the true mean lies with probability
    1 - confidence.

    Args:
        trade_returns: profits of the closed trades after costs over the equity at the entry, as fractions,
            shape (n_trades,).
        confidence: one-sided, 0.5 to 1 exclusive.
        seed: seed of the resampling; equal trades and seeds give equal bounds.
    """
    n = len(trade_returns)
    mean = float(trade_returns.mean()) if n else math.nan
    standard = standardised(trade_returns) if n >= MIN_TRADES else None
    if standard is None:
        return Expectancy(n, mean, math.nan)
    z, _ = standard
    means, deviations = resampled_moments(z, resamples, np.random.default_rng(seed))
    error = float(trade_returns.std(ddof=1)) / math.sqrt(n)
    return Expectancy(n, mean, mean - error * _quantile(means * math.sqrt(n), deviations, confidence))


def _quantile(gaps: Floats, deviations: Floats, confidence: float) -> float:
    """Quantile of gaps / deviations; a constant resample has an infinite statistic, of the gap's sign."""
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.where(gaps == 0.0, 0.0, gaps / deviations)
    return float(np.quantile(statistics, confidence, method="higher"))
