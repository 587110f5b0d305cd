"""Confidence for a test statistic under repeated looks, while the record grows.

A standardised sum of n independent values behaves as W(n) / sqrt(n) with W a Brownian motion. It exceeds c at
a look between n0 and n1 where W crosses the curve c sqrt(n), and so with at most the probability of crossing
the chord of the curve, a lower line. From W(n0) = x sqrt(n0) on, with g = n1 / n0, the chord is a line of
slope b = c / (sqrt(g) + 1) at the distance a = c - x, crossed within T = g - 1 with probability

    q(-(a + b T) / sqrt(T)) + exp(-2 a b) q((b T - a) / sqrt(T))

(Siegmund 1985, "Sequential Analysis", equation 3.14; q the normal distribution), averaged over a normal x.
With the average at 1 - confidence, looking after every bar and stopping at will errs no more often than a
single look at the confidence.
"""

import math
from functools import lru_cache
from statistics import NormalDist

NORMAL = NormalDist()
HALVINGS = 50
"""Of the interval in which the limit is sought."""
POINTS = 2001
"""Values of the statistic at the shortest record, from `LOWEST` to the limit."""
LOWEST = -8.0


def crossing_probability(limit: float, growth: float) -> float:
    """Upper bound of the probability that the statistic of a record without an edge ever exceeds the limit.

    Args:
        limit: limit of the standardised statistic.
        growth: longest record over the shortest, n1 / n0, at least 1.
    """
    # imported here: a pass that judges nothing, and a look, read the policy too
    import numpy as np
    from scipy.special import ndtr

    first = 1.0 - NORMAL.cdf(limit)
    if growth == 1.0:
        return first
    begun = np.linspace(LOWEST, limit, POINTS)
    span = growth - 1.0
    slope = limit / (math.sqrt(growth) + 1.0)
    gap = limit - begun
    crossed = ndtr(-(gap + slope * span) / math.sqrt(span))
    crossed += np.exp(-2.0 * gap * slope) * ndtr((slope * span - gap) / math.sqrt(span))
    density = np.exp(-begun * begun / 2.0) / math.sqrt(2.0 * math.pi)
    return first + float(np.trapezoid(crossed * density, begun))


@lru_cache(maxsize=256)
def confidence_of_looks(confidence: float, growth: float) -> float:
    """Confidence to ask for at every look, with all looks together in error as rarely as a single
    look at `confidence`.

    Args:
        confidence: probability 0.5..1, 1 excluded.
        growth: longest record over the shortest, n1 / n0.

    Returns:
        A probability, at least `confidence`; NaN for a growth below 1 or not finite.
    """
    if not 0.5 <= confidence < 1.0:
        raise ValueError(f"the confidence must be at least 0.5 and below 1, not {confidence}")
    if not 1.0 <= growth < math.inf:
        return math.nan
    low = NORMAL.inv_cdf(confidence)
    high = low + 8.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        if crossing_probability(middle, growth) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return max(confidence, NORMAL.cdf(high))
