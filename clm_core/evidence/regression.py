"""Regression of a strategy's returns on those of a baseline: excess return, alpha and beta, with intervals.

alpha and beta are the coefficients of

    r(t) = alpha + beta b(t) + e(t)

by ordinary least squares (Jensen 1968, "The performance of mutual funds in the period 1945-1964", Journal of
Finance 23). Standard errors hold under heteroskedasticity and autocorrelation: the long-run variance of the
coefficients' influence functions, see `track_record.long_run_variance`, and at least their variance, so that
negative autocorrelation narrows no interval. Intervals are normal.
"""

import math

import numpy as np

from clm_core.domain.evaluations import MIN_BARS, IntervalEstimate
from clm_core.evidence.track_record import NORMAL, long_run_variance
from clm_core.market.bars import Floats

NOT_ESTIMATED = IntervalEstimate(value=math.nan, low=math.nan, high=math.nan)


def excess_return(
    returns: Floats, baseline: Floats, periods_per_year: float, confidence: float = 0.95
) -> IntervalEstimate:
    """Mean difference of the returns, a fraction a year (not compounded); NaN if not measurable.

    Args:
        returns, baseline: returns of the same bars as fractions, shape (n_bars,).
        periods_per_year: bars in a year.
        confidence: coverage of the interval, 0..1 exclusive.
    """
    if not _measurable(returns, baseline):
        return NOT_ESTIMATED
    difference = returns - baseline
    mean = float(difference.mean())
    return _estimate(mean, difference - mean, periods_per_year, confidence)


def alpha_and_beta(
    returns: Floats, baseline: Floats, periods_per_year: float, confidence: float = 0.95
) -> tuple[IntervalEstimate, IntervalEstimate]:
    """Alpha, a fraction a year, and beta; NaN for too few bars, values not finite or a constant baseline.

    Args:
        returns, baseline: returns of the same bars as fractions, shape (n_bars,).
        periods_per_year: bars in a year.
        confidence: coverage of the intervals, 0..1 exclusive.
    """
    if not _measurable(returns, baseline) or np.ptp(baseline) == 0.0:
        return NOT_ESTIMATED, NOT_ESTIMATED
    centre = float(baseline.mean())
    centred = baseline - centre
    variance = float(np.mean(centred**2))
    beta = float(np.mean(centred * returns)) / variance
    alpha = float(returns.mean()) - beta * centre
    residuals = returns - alpha - beta * baseline
    influence_of_beta = centred * residuals / variance
    influence_of_alpha = residuals - centre * influence_of_beta
    return (
        _estimate(alpha, influence_of_alpha, periods_per_year, confidence),
        _estimate(beta, influence_of_beta, 1.0, confidence),
    )


def _measurable(returns: Floats, baseline: Floats) -> bool:
    if returns.shape != baseline.shape:
        raise ValueError(
            f"{len(returns)} returns and {len(baseline)} of the baseline: compare both on the same bars"
        )
    return len(returns) >= MIN_BARS and bool(np.isfinite(returns).all() and np.isfinite(baseline).all())


def _estimate(value: float, influence: Floats, scale: float, confidence: float) -> IntervalEstimate:
    """Normal interval around an estimate whose error is the mean of the influence function, shape (n,)."""
    error = math.sqrt(_variance_of_mean(influence))
    reach = NORMAL.inv_cdf(0.5 + confidence / 2.0) * error
    return IntervalEstimate(value=scale * value, low=scale * (value - reach), high=scale * (value + reach))


def _variance_of_mean(values: Floats) -> float:
    spread = float(np.var(values))
    if spread == 0.0 or np.ptp(values[:-1]) == 0.0:
        return spread / len(values)
    return max(long_run_variance(values), spread) / len(values)
