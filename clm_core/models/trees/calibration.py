"""Calibration of scores to probabilities: a logistic curve with two numbers (Platt 1999), fitted with priors.

Labels overlap, and a year of hourly bars holds few independent outcomes. So rows weigh by the uniqueness of
their labels, and both numbers have a normal prior: the slope about 1, where the score itself is the log-odds,
the intercept about the log-odds of what was seen before. A wrong scale over hundreds of independent outcomes
is put right; noise in a short tail changes little.
"""

import math
from typing import NamedTuple

import numpy as np

from clm_core.market.bars import Floats

SLOPE_DEVIATION = 0.5
"""Standard deviation of the slope's prior about 1."""
BASE_DEVIATION = 0.1
"""Standard deviation of a market's log-odds about even, before any bar is seen: a share of 47.5 to 52.5 %."""
STEPS = 50
"""Newton steps, of which a handful suffice."""
NEGLIGIBLE = 1e-10
"""Change of the numbers at which the fit ends."""


class Prior(NamedTuple):
    """Normal distribution of an intercept."""

    mean: float
    precision: float
    """1 / variance."""


class Curve(NamedTuple):
    """Probability of a score x: 1 / (1 + exp(-(slope * x + intercept)))."""

    slope: float
    """At least 0: a score that misled on the calibration rows is not turned around."""
    intercept: float

    def log_odds(self, score: Floats) -> Floats:
        return self.slope * score + self.intercept

    def probability(self, score: Floats) -> Floats:
        return logistic(self.log_odds(score))


def logistic(log_odds: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * log_odds)))


def base_prior(share: float, independent: float) -> Prior:
    """Distribution of the log-odds of an outcome, given its share among so many independent outcomes."""
    even = 1 / BASE_DEVIATION**2
    seen = independent / 4
    bounded = min(max(share, 0.01), 0.99)
    return Prior(math.log(bounded / (1 - bounded)) * seen / (even + seen), even + seen)


def fit_curve(score: Floats, outcome: Floats, weight: Floats, base: Prior) -> Curve:
    """Most probable curve, by Newton's method; without rows, the means of the priors.

    Args:
        score: log-odds to calibrate, about 0, shape (n,).
        outcome: 1.0 or 0.0, shape (n,).
        weight: number of independent outcomes each row stands for, shape (n,).
        base: prior of the intercept.
    """
    means = np.array([1.0, base.mean])
    precision = np.array([1 / SLOPE_DEVIATION**2, base.precision])
    inputs = np.stack([score, np.ones(len(score))])

    def misfit(curve: Floats) -> float:
        log_odds = np.where(outcome > 0.5, 1.0, -1.0) * (curve @ inputs)
        return float(weight @ np.logaddexp(0.0, -log_odds) + precision @ (curve - means) ** 2 / 2)

    curve = means.copy()
    for _ in range(STEPS):
        probability = logistic(curve @ inputs)
        slope = inputs @ (weight * (outcome - probability)) - precision * (curve - means)
        curvature = (inputs * (weight * probability * (1 - probability))) @ inputs.T + np.diag(precision)
        step = np.linalg.solve(curvature, slope)
        # a step from far away may lead beyond the optimum, and further away each time
        while np.abs(step).max() > NEGLIGIBLE and misfit(curve + step) > misfit(curve):
            step = step / 2
        curve = curve + step
        if np.abs(step).max() <= NEGLIGIBLE:
            break
    return Curve(max(float(curve[0]), 0.0), float(curve[1]))
