"""Hedge: exponential weights over arms that are all observed on every bar (Freund & Schapire 1997).

With gains in [0, 1], weights proportional to prior * exp(eta * past gains), and eta = sqrt(8 ln K / T), the
gains of the best of K arms exceed the weighted gains of at most T bars by at most sqrt(T ln K / 2) under a
uniform prior, whatever the returns (Cesa-Bianchi & Lugosi 2006, theorem 2.2). Under a prior p the excess over
arm i is at most ln(1 / p_i) / eta + eta T / 8.
"""

import math

import numpy as np

from clm_core.market.bars import Floats

WARM_UP = 20
"""First bars, which tell the size of a return and say nothing about the arms."""
NEUTRAL = 0.5
"""Gain of every arm on a bar that says nothing."""


def gains(returns: Floats, clip: float) -> Floats:
    """Returns mapped to gains in [0, 1], shape (n_bars, n_arms).

    A return is divided by the root mean square of the returns of all arms on the bars before, so that a gain
    uses no later bar and arms keep their relative size; clipped at `clip` of these deviations; and moved from
    [-clip, clip] to [0, 1]. The first `WARM_UP` bars, and bars before the first return, gain 0.5.

    Args:
        returns: fractions, shape (n_bars, n_arms).
        clip: deviations beyond which a return counts no more, > 0.

    Raises:
        ValueError: a return is not finite.
    """
    if not np.isfinite(returns).all():
        raise ValueError("a return is not finite: leave bars out on which an arm was not observed")
    bars = len(returns)
    squares = np.concatenate([[0.0], np.cumsum(np.mean(returns**2, axis=1))])[:bars]
    scale = np.sqrt(squares / np.maximum(np.arange(bars), 1))
    known = (scale > 0.0) & (np.arange(bars) >= WARM_UP)
    mapped = np.full(returns.shape, NEUTRAL)
    mapped[known] = (np.clip(returns[known] / scale[known, None], -clip, clip) + clip) / (2.0 * clip)
    return mapped


def learning_rate(arms: int, horizon: int) -> float:
    """Rate sqrt(8 ln K / T) for K arms and at most T bars; 0 for a single arm."""
    return math.sqrt(8.0 * math.log(arms) / horizon)


def hedge_path(gained: Floats, prior: Floats, rate: float) -> Floats:
    """Weights before each bar, and after the last, shape (n_bars + 1, n_arms); every row sums to 1.

    Args:
        gained: gains in [0, 1], shape (n_bars, n_arms).
        prior: weights before the first bar, positive, shape (n_arms,).
        rate: see `learning_rate`.
    """
    past = np.vstack([np.zeros(gained.shape[1]), np.cumsum(gained, axis=0)])
    logs = np.log(prior) + rate * past
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def regret_bound(prior: Floats, rate: float, bars: int) -> Floats:
    """Largest excess of each arm's gains over the weighted gains, shape of `prior`, which sums to 1."""
    return np.asarray(np.log(1.0 / prior) / rate + rate * bars / 8.0)
