"""Value of a retrain: the expected gain of a newer version against compute, turnover and trials.

The edge of a recipe, its net return a day, is unknown and wanders: a stationary Gaussian process
(Ornstein-Uhlenbeck) around 0 with the half-life of the settings, and a standard deviation equal to an annual
Sharpe ratio of 1. The judged record of the newest version measures the edge F of a version trained now. The
edge C of the production version is correlated with F by 2^(-age / half-life), and the returns since the
promotion measure it. Both are jointly normal, so the difference D = F - C is normal, and the gain of a day
is E[max(D, 0)], the expected improvement (Jones, Schonlau & Welch 1998, equation 15), times the probability
of a promotion.

A retrain serves until the next one, so the gain is counted over the days since the newest training. A request
pays once this gain reaches the cost: with a gain that grows steadily with age, the mean of gain lost and cost
paid is least at this interval, as in the economic order quantity (Harris 1913).
"""

import math

from clm_core.domain.retrain_values import RetrainEvidence, RetrainValue
from clm_core.evidence.track_record import NORMAL, expected_maximum_sharpe

DAYS_PER_YEAR = 365.0
BPS = 1e4


def retrain_value(
    evidence: RetrainEvidence, half_life_days: float, price_per_hour: float, capital: float
) -> RetrainValue:
    """Expected gain of a retrain over the days since the newest training, and the cost.

    - Compute is hours times price over capital.
    - Turnover closes the positions of the production version and opens those of the new version, at the mean
      exposure of the former, if the new version is promoted.
    - Trials raise the trial luck of later versions. This raise in standard errors of a record, times the
      largest density of a normal variable, is the most by which the probability of a pass falls for the next
      retrain, which would gain as much over the same days. The trials count as independent: an upper limit.
    """
    probability = (evidence.promoted + 1.0) / (evidence.retrains + 2.0)
    serving = evidence.serving
    exposure = 0.0 if serving is None else serving.exposure
    raised = expected_maximum_sharpe(1.0, max(evidence.trials_after, 1.0)) - expected_maximum_sharpe(
        1.0, max(evidence.trials, 1.0)
    )
    passes_fewer = min(max(raised, 0.0) * NORMAL.pdf(0.0), probability)
    improvement = expected_improvement(*difference_of_edges(evidence, half_life_days)) * BPS
    days = evidence.days_since_training
    return RetrainValue(
        improvement_bps=improvement,
        probability=probability,
        days=days,
        compute_bps=evidence.hours * price_per_hour / capital * BPS,
        turnover_bps=probability * 2.0 * exposure * evidence.side_bps,
        trials_bps=passes_fewer * improvement * days,
    )


def difference_of_edges(evidence: RetrainEvidence, half_life_days: float) -> tuple[float, float]:
    """Mean and variance of the edge of a version trained now minus that of production, return a day.

    Without a production version, the edge of a version trained now.
    """
    judged = evidence.judged
    prior = judged.deviation**2 / DAYS_PER_YEAR
    shrinkage = judged.days / (judged.days + DAYS_PER_YEAR)
    kept = correlation(evidence.days_since_training, half_life_days)
    new = kept * shrinkage * judged.mean
    new_variance = kept**2 * (1.0 - shrinkage) * prior + (1.0 - kept**2) * prior
    serving = evidence.serving
    if serving is None:
        return new, new_variance
    drift = 1.0 if evidence.drift_score is None else max(evidence.drift_score, 1.0)
    shared = correlation(serving.age_days * drift, half_life_days)
    old = shared * new
    old_variance = shared**2 * new_variance + (1.0 - shared**2) * prior
    covariance = shared * new_variance
    mean = new - old
    variance = new_variance - 2.0 * covariance + old_variance
    measured = serving.returns
    if measured is not None and measured.days > 0:
        # the variance of the judged record stands in: few days measure a mean, and hardly a variance
        total = old_variance + judged.deviation**2 / measured.days
        mean += (covariance - old_variance) / total * (measured.mean - old)
        variance -= (covariance - old_variance) ** 2 / total
    return mean, max(variance, 0.0)


def correlation(days: float, half_life_days: float) -> float:
    """Correlation of the edges of two moments: 1 at the same moment, one half after the half-life."""
    return float(2.0 ** (-max(days, 0.0) / half_life_days))


def expected_improvement(mean: float, variance: float) -> float:
    """Expectation of a normal variable above 0, E[max(D, 0)]."""
    if not variance > 0.0:
        return max(mean, 0.0) if variance == 0.0 else math.nan
    deviation = math.sqrt(variance)
    return mean * NORMAL.cdf(mean / deviation) + deviation * NORMAL.pdf(mean / deviation)
