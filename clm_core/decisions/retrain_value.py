"""Value of a retrain: the expected gain of a newer version against compute, turnover and trials.

The edge F(t) of a recipe, a net return a day, is unknown: a normal variable of mean 0 with the standard
deviation of an annual Sharpe ratio of 1. Half of its variance is a level that stays, and half wanders around
the level, a stationary Gaussian process (Ornstein-Uhlenbeck) with the half-life of the settings: a long
record determines the level, so a year of losses is not forgotten. Whether versions outdate is unknown too. If
they do not, every version earns F(t). If they do, a version of age a earns c (r F(t) + sqrt(1 - r^2) W(t)),
where r = 2^(-a / half-life), W is a wandering process with the variance of F and independent of it, the
version's own, and c makes the mean of c r over the record 1. Before any record the odds are even
(`OUTDATES`).

The judged record and the returns of production measure what versions of known ages earned, with the noise
of their days; W is followed for the version that a promotion replaces, and in the record belongs to the
noise. Under each of the two hypotheses a Kalman filter of these returns gives F and W now, and their
likelihood, which moves the odds. Losses of new versions lower F, and with it the gain of a retrain; losses of
an old version alone lower W, and raise the gain.

A retrain replaces what production earns, or the version awaiting a decision, or nothing without either, by
what a new version earns: the difference D = c ((1 - r) F - sqrt(1 - r^2) W), or c F. Its judgement adds t
days since the newest training to the record, which moves the mean of F by a normal variable of variance
P^2 / (P + s^2 / t), with the variance P of F and the deviation s of a day. The gain of a day is the expected
improvement E[max(m', 0)] of the later mean m' of D (Jones, Schonlau & Welch 1998, equation 15; Frazier,
Powell & Dayanik 2008), in the mean over both hypotheses, times the probability of a promotion. Where no
version is in production or awaits a decision, the positions of the newest version say already what these
days add: t is 0, and the record passes or does not.

A retrain serves until the next one, so the gain is counted over the days since the newest training, and a
request pays once this gain reaches the cost. With a gain that grows steadily with age, this interval is 0.71
of the economic order quantity (Harris 1913), and the mean of gain lost and cost paid 6 % above the least.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clm_core.domain.evaluations import Verdict
from clm_core.domain.retrain_values import EarnedSpan, RetrainEvidence, RetrainValue
from clm_core.evidence.track_record import NORMAL, expected_maximum_sharpe
from clm_core.market.bars import Floats

DAYS_PER_YEAR = 365.0
BPS = 1e4
OUTDATES = 0.5
"""Probability that versions outdate with the half-life, before any record."""
LEVEL = 0.5
"""Share of the variance of the edge in the level that stays."""


@dataclass(frozen=True)
class EdgeNow:
    """Edge of a recipe under a hypothesis: returns a day, as fractions."""

    outdates: bool
    """True if versions outdate with the half-life."""
    probability: float
    """Probability of the hypothesis, 0..1."""
    new_share: float
    """Share of the edge in the returns of a new version: above 1 if versions outdate."""
    mean: float
    """Mean of the edge, a normal variable."""
    variance: float
    own: float
    """Mean of the process W of the version replaced by a promotion."""


def retrain_value(
    evidence: RetrainEvidence, half_life_days: float, price_per_hour: float, capital: float
) -> RetrainValue:
    """Expected gain of a retrain over the days since the newest training, and the cost.

    - Compute is hours times price over capital.
    - Turnover closes the positions of the production version and opens those of the new version, at the mean
      exposure of the former, if the new version is promoted.
    - Trials raise the trial luck of later versions. This raise in standard errors of a record, times the
      largest density of a normal variable, is the most by which the probability of a pass falls for the next
      retrain, which would gain as much over the same days.
    """
    edges = edges_now(evidence.earned, evidence.deviation, half_life_days)
    probability = promotion_probability(evidence, edges)
    serving = evidence.serving
    exposure = 0.0 if serving is None else serving.exposure
    raised = expected_maximum_sharpe(1.0, max(evidence.trials_after, 1.0)) - expected_maximum_sharpe(
        1.0, max(evidence.trials, 1.0)
    )
    passes_fewer = min(max(raised, 0.0) * NORMAL.pdf(0.0), probability)
    days = evidence.days_since_training
    improvement = BPS * sum(
        each.probability * expected_improvement(*later_difference(evidence, each, half_life_days))
        for each in edges
    )
    return RetrainValue(
        improvement_bps=improvement,
        probability=probability,
        days=days,
        compute_bps=evidence.hours * price_per_hour / capital * BPS,
        turnover_bps=probability * 2.0 * exposure * evidence.side_bps,
        trials_bps=passes_fewer * improvement * days,
    )


def edges_now(
    earned: Iterable[EarnedSpan], deviation: float, half_life_days: float
) -> tuple[EdgeNow, EdgeNow]:
    """Edge of a version trained now under both hypotheses, with their odds after the returns.

    Args:
        deviation: standard deviation of the return of a day, above 0.
    """
    spans = sorted(earned, key=lambda each: -each.days_ago)
    kept = [correlation(each.age_days, half_life_days) for each in spans]
    recorded = sum(each.days for each in spans)
    kept_days = sum(each.days * share for each, share in zip(spans, kept, strict=True))
    new_share = recorded / kept_days if kept_days > 0.0 else 1.0
    own = [math.sqrt(1.0 - share**2) * each.serves for each, share in zip(spans, kept, strict=True)]
    weights = new_share * np.column_stack([kept, own])
    alike = _filtered(spans, np.tile([1.0, 0.0], (len(spans), 1)), deviation, half_life_days)
    outdated = _filtered(spans, weights, deviation, half_life_days)
    odds = math.log(OUTDATES / (1.0 - OUTDATES)) + outdated[3] - alike[3]
    probability = 1.0 / (1.0 + math.exp(-max(min(odds, 500.0), -500.0)))
    return (
        EdgeNow(False, 1.0 - probability, 1.0, *alike[:3]),
        EdgeNow(True, probability, new_share, *outdated[:3]),
    )


def _filtered(
    spans: Sequence[EarnedSpan], weights: Floats, deviation: float, half_life_days: float
) -> tuple[float, float, float, float]:
    """Mean and variance of F now, mean of W, and the log-likelihood of the returns up to a constant.

    The state is the level, the wandering part of F, and W.

    Args:
        spans: returns, oldest first.
        weights: weights of F and W in each return, shape (n_spans, 2).
    """
    prior = deviation**2 / DAYS_PER_YEAR * np.array([LEVEL, 1.0 - LEVEL, 1.0])
    mean = np.zeros(3)
    covariance = np.diag(prior)
    likelihood = 0.0
    then = math.inf
    for span, weight in zip(spans, weights[:, [0, 0, 1]], strict=True):
        kept = np.array([1.0, *2 * [correlation(then - span.days_ago, half_life_days)]])
        then = span.days_ago
        mean = kept * mean
        covariance = np.outer(kept, kept) * covariance + np.diag((1.0 - kept**2) * prior)
        seen = covariance @ weight
        total = float(weight @ seen) + deviation**2 / span.days
        surprise = span.growth - float(weight @ mean)
        likelihood -= (math.log(total) + surprise**2 / total) / 2.0
        mean = mean + seen * (surprise / total)
        covariance = covariance - np.outer(seen, seen) / total
    kept = np.array([1.0, *2 * [correlation(then, half_life_days)]])
    mean = kept * mean
    covariance = np.outer(kept, kept) * covariance + np.diag((1.0 - kept**2) * prior)
    return float(mean[:2].sum()), float(covariance[:2, :2].sum()), float(mean[2]), likelihood


def later_difference(evidence: RetrainEvidence, edge: EdgeNow, half_life_days: float) -> tuple[float, float]:
    """Mean of the difference between a new version and the replaced version, and the variance of the mean
    after the judgement of a retrain."""
    noise = evidence.deviation**2
    resolved = resolved_variance(edge.variance, noise, evidence.unseen_days)
    serving = evidence.serving
    if serving is None:
        return edge.new_share * edge.mean, edge.new_share**2 * resolved
    if not edge.outdates:
        return 0.0, 0.0
    drift = 1.0 if evidence.drift_score is None else max(evidence.drift_score, 1.0)
    kept = correlation(serving.age_days * drift, half_life_days)
    mean = edge.new_share * ((1.0 - kept) * edge.mean - math.sqrt(1.0 - kept**2) * edge.own)
    return mean, (edge.new_share * (1.0 - kept)) ** 2 * resolved


def promotion_probability(evidence: RetrainEvidence, edges: Iterable[EdgeNow]) -> float:
    """Share of promoted retrains among the last, by Laplace's rule; at most the probability of a record
    with the growth required by the gate after the days since the newest training."""
    days = evidence.unseen_days
    noise = evidence.deviation**2 * days
    missing = evidence.required_growth - evidence.record_growth
    reaches = sum(
        each.probability * _probability_above(each.mean * days - missing, noise + each.variance * days**2)
        for each in edges
    )
    return min((evidence.promoted + 1.0) / (evidence.retrains + 2.0), reaches)


def required_growth(verdict: Verdict, deviation: float, days: float) -> float:
    """Log return of a record of some days at the lowest Sharpe ratio that passes the checks of a verdict: the
    threshold, or the trial luck with the confidence of the deflated Sharpe ratio if higher.

    Args:
        verdict: verdict of the newest version.
        deviation: standard deviation of the return of a day.
    """
    limits = {each.name: each.limit for each in verdict.checks}
    needed = limits.get("sharpe_ratio", 0.0)
    if verdict.luck is not None and math.isfinite(verdict.luck.sharpe_ratio):
        error = math.sqrt(DAYS_PER_YEAR / days)
        confidence = NORMAL.inv_cdf(limits.get("deflated_sharpe_ratio", 0.5))
        needed = max(needed, verdict.luck.sharpe_ratio + confidence * error)
    # the mean of log returns lies half the variance below that of returns
    return days * (needed * deviation / math.sqrt(DAYS_PER_YEAR) - deviation**2 / 2.0)


def _probability_above(mean: float, variance: float) -> float:
    """Probability that a normal variable is above 0."""
    return NORMAL.cdf(mean / math.sqrt(variance)) if variance > 0.0 else float(mean > 0.0)


def resolved_variance(variance: float, noise: float, days: float) -> float:
    """Variance of the mean of a normal variable after measuring it for some days.

    Args:
        variance: variance of the variable before.
        noise: variance of the measurement of a day.
    """
    return variance**2 * days / (variance * days + noise)


def correlation(days: float, half_life_days: float) -> float:
    """Correlation of the edges at two moments: 1 at the same moment, one half after the half-life."""
    return float(2.0 ** (-max(days, 0.0) / half_life_days))


def expected_improvement(mean: float, variance: float) -> float:
    """Expectation of a normal variable above 0, E[max(D, 0)]."""
    if not variance > 0.0:
        return max(mean, 0.0) if variance == 0.0 else math.nan
    deviation = math.sqrt(variance)
    return mean * NORMAL.cdf(mean / deviation) + deviation * NORMAL.pdf(mean / deviation)
