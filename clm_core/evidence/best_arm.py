"""Posterior probability of being the best of several arms: weights of Thompson sampling, without drawing.

Thompson sampling plays each arm with its probability of being the best. With independent posteriors of
density f_i and distribution function F_j,

    P(arm i is the best) = integral of f_i(x) * product over j != i of F_j(x) dx

here by Gauss-Legendre quadrature between the quantiles of all arms: the same data give the same weights,
where a single draw would jump between the arms. An old observation counts less, since markets are not
stationary: the likelihood of a bar enters with a power of `discount ** age` (Ibrahim & Chen 2000, power
priors).

A sampler is right where the arm that was played is the only arm observed; where all arms are observed on
every bar, `hedge` is the better rule.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clm_core.market.bars import Floats

MIN_EFFECTIVE = 2.0
"""Effective observations without which a mean has no posterior to speak of."""
NODES = 20
"""Nodes of the quadrature between two neighbouring quantiles."""
NARROWEST = 1e-9
"""Scale of an arm whose returns never vary, as a fraction of the widest scale or mean."""
_TAILS = 10.0 ** np.arange(-14, 0)
_QUANTILES = np.concatenate([_TAILS, [0.25, 0.5, 0.75], 1.0 - _TAILS[::-1]])
Distribution = Any
"""Frozen distribution of `scipy.stats`, which has no type hints: pdf, cdf and ppf."""


def bar_weights(age_days: Floats, discount: float) -> Floats:
    """Weight of an observation by its age, shape of `age_days`.

    Args:
        age_days: days since the observation, not negative.
        discount: weight left after one day, in (0, 1]; 1 forgets nothing.
    """
    return np.asarray(discount ** np.maximum(age_days, 0.0))


def effective_count(weights: Floats) -> float:
    """Sum of the weights: observations of weight 1 that the posterior is worth."""
    return float(weights.sum())


def gaussian_posteriors(returns: Sequence[Floats], weights: Sequence[Floats]) -> list[Distribution]:
    """Posteriors of the mean returns of normal arms with unknown mean and variance, flat prior 1/variance.

    The posterior of a mean is Student's t with n - 1 degrees of freedom around the weighted mean, of scale
    sqrt(S / ((n - 1) n)); n is the sum of the weights and S the weighted sum of squared deviations (Gelman et
    al., Bayesian Data Analysis, 3.2).

    Args:
        returns: per arm, returns as fractions, shape (n_bars,); arms may differ in length.
        weights: per arm, weights of the returns in (0, 1], shape (n_bars,).

    Raises:
        ValueError: a return is not finite, or an arm has no more than `MIN_EFFECTIVE` observations.
    """
    from scipy import stats

    moments = [_moments(*arm) for arm in zip(returns, weights, strict=True)]
    widest = max(max(abs(mean), scale) for _, mean, scale in moments)
    narrowest = NARROWEST * widest if widest > 0.0 else 1.0
    return [stats.t(count - 1.0, mean, max(scale, narrowest)) for count, mean, scale in moments]


def beta_posterior(wins: float, losses: float) -> Distribution:
    """Posterior of a probability of winning, prior Beta(1, 1).

    Args:
        wins: observations won, weighted or not; not negative.
        losses: likewise.

    Raises:
        ValueError: a count is negative or not a number.
    """
    from scipy import stats

    if not (wins >= 0.0 and losses >= 0.0):
        raise ValueError(f"{wins} wins and {losses} losses: counts are not negative")
    return stats.beta(1.0 + wins, 1.0 + losses)


def probabilities_of_best(posteriors: Sequence[Distribution]) -> Floats:
    """Probability of each arm of having the highest mean, shape (n_arms,); the sum is 1.

    Args:
        posteriors: independent continuous posteriors, at least one.
    """
    quantiles = np.sort(np.concatenate([each.ppf(_QUANTILES) for each in posteriors]))
    edges = np.unique(quantiles[np.isfinite(quantiles)])
    nodes, node_weights = np.polynomial.legendre.leggauss(NODES)
    middle = (edges[1:] + edges[:-1]) / 2.0
    half = (edges[1:] - edges[:-1]) / 2.0
    points = middle[:, None] + half[:, None] * nodes
    steps = half[:, None] * node_weights
    below = [each.cdf(points) for each in posteriors]
    masses = [
        np.sum(steps * each.pdf(points) * np.prod([*below[:arm], *below[arm + 1 :]], axis=0))
        for arm, each in enumerate(posteriors)
    ]
    return np.asarray(masses / np.sum(masses))


def _moments(returns: Floats, weights: Floats) -> tuple[float, float, float]:
    """Effective count, weighted mean, and scale of the posterior of the mean."""
    count = effective_count(weights)
    if not (np.isfinite(returns).all() and count > MIN_EFFECTIVE):
        raise ValueError(
            f"{count:.1f} effective observations, all finite: {np.isfinite(returns).all()}. A posterior of "
            f"the mean takes more than {MIN_EFFECTIVE:g}, all finite"
        )
    mean = float(np.sum(weights * returns)) / count
    squares = float(np.sum(weights * (returns - mean) ** 2))
    return count, mean, float(np.sqrt(squares / ((count - 1.0) * count)))
