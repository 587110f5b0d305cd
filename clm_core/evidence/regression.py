"""Regression of a strategy's returns on those of a baseline: excess return, alpha and beta, with intervals.

alpha and beta are the coefficients of

    r(t) = alpha + beta b(t) + e(t)

by ordinary least squares (Jensen 1968, "The performance of mutual funds in the period 1945-1964", Journal of
Finance 23). Standard errors hold under heteroskedasticity and autocorrelation: the long-run variance of the
coefficients' influence functions, see `track_record.long_run_variance`, and at least their variance, so that
negative autocorrelation narrows no interval. Intervals are normal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.measures import MIN_BARS
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


@dataclass(frozen=True)
class JointAlpha:
    """Intercept of a regression on several baselines together, a fraction a year."""

    value: float
    error: float
    """Standard error."""

    def at_least(self, confidence: float) -> float:
        """Lower end of the one-sided interval with the given confidence, 0..1 exclusive; NaN if unknown."""
        return self.value - NORMAL.inv_cdf(confidence) * self.error


NOT_REGRESSED = JointAlpha(math.nan, math.nan)
COPY = 1e-9
"""Residuals below this share of the returns' deviation are rounding: the returns are a mixture of the
baselines, with an alpha of 0 and this error, so that no confidence calls alpha positive."""


def joint_alpha(returns: Floats, baselines: Sequence[Floats], periods_per_year: float) -> JointAlpha:
    """Alpha of returns on several baselines together,

        r(t) = alpha + sum over i of beta(i) b(i, t) + e(t)

    by least squares, with the error of the module and n / (n - number of coefficients) for the fitted ones.
    Baselines that depend on each other, or never vary, count as far as they tell something new.

    Args:
        returns: returns of periods as fractions, shape (n,).
        baselines: returns of each baseline over the same periods, shape (n,) each, at least one.
        periods_per_year: periods in a year.

    Returns:
        `NOT_REGRESSED` for too few periods or values that are not finite.
    """
    if not all(_measurable(returns, baseline) for baseline in baselines):
        return NOT_REGRESSED
    n = len(returns)
    centred = np.column_stack([baseline - baseline.mean() for baseline in baselines])
    scale = np.linalg.norm(centred, axis=0)
    usable = centred[:, scale > 0.0] / scale[scale > 0.0]
    betas, _, rank, _ = np.linalg.lstsq(usable, returns - returns.mean(), rcond=1e-9)
    residuals = returns - returns.mean() - usable @ betas
    means = np.array([baseline.mean() for baseline in baselines])[scale > 0.0] / scale[scale > 0.0]
    alpha = float(returns.mean() - means @ betas)
    if n - 1 - rank < 1 or np.linalg.norm(residuals) <= COPY * np.linalg.norm(returns):
        return JointAlpha(0.0, COPY)
    # a period moves the intercept by its residual, less what the slopes take up
    leverage = usable @ np.linalg.pinv(usable.T @ usable, rcond=1e-9) @ means * n
    influence = (1.0 - leverage) * residuals
    error = math.sqrt(_variance_of_mean(influence) * n / (n - 1 - rank))
    return JointAlpha(periods_per_year * alpha, periods_per_year * error)


def simpler_rule(
    returns: Floats, baselines: Mapping[str, Floats], periods_per_year: float, confidence: float
) -> str:
    """Name of the baseline with the highest correlation with the returns, among the baselines without a
    certain alpha of the returns beyond each alone. Empty if the alpha is certain beyond every baseline.

    Args:
        returns: returns of periods as fractions, shape (n,).
        baselines: returns of each baseline over the same periods by name, shape (n,) each.
        confidence: one-sided, 0..1 exclusive.
    """
    uncertain = [
        name
        for name, baseline in baselines.items()
        if not joint_alpha(returns, [baseline], periods_per_year).at_least(confidence) >= 0.0
    ]
    return max(uncertain, key=lambda name: _correlation(returns, baselines[name]), default="")


def _correlation(first: Floats, second: Floats) -> float:
    """Correlation of two series, shape (n,) each; 0.0 for constant series and values that are not finite."""
    scale = float(first.std() * second.std())
    if not (math.isfinite(scale) and scale > 0.0):
        return 0.0
    return float(np.mean((first - first.mean()) * (second - second.mean()))) / scale


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
