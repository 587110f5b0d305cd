"""Payoffs of simulated trades: distributions of a trade's return with a stated win rate.

Without an edge and before costs, a trade gains g |n| with probability p and loses l |n| otherwise, n standard
normal, with

    g = sqrt((1 - p) / p),   l = sqrt(p / (1 - p))

so that the mean is 0, the variance 1, the win rate p and the ratio of mean gain to mean loss (1 - p) / p. For
p of one half the return is normal; the density is the two-piece normal of Fechner with free weights.
"""

import numpy as np

from clm_core.market.bars import Floats

SYMMETRIC = "symmetric"
WIN_RATES = {SYMMETRIC: 0.5, "trend-like": 0.35, "option-like": 0.9}
"""Win rates of the named payoffs: as many gains as losses, few large gains, or many small gains and few large
losses."""
MIN_WIN_RATE = 0.05
MAX_WIN_RATE = 0.95


def payoff_ratio(win_rate: float) -> float:
    """Mean gain over mean loss of trades without an edge before costs."""
    return (1.0 - win_rate) / win_rate


def win_rate_of(payoff: str) -> float:
    """Win rate of a payoff, given by name or as the ratio of mean gain to mean loss.

    Raises:
        ValueError: the text is neither, or the win rate is outside `MIN_WIN_RATE` to `MAX_WIN_RATE`.
    """
    if payoff in WIN_RATES:
        return WIN_RATES[payoff]
    try:
        win_rate = 1.0 / (1.0 + float(payoff))
    except (ValueError, ZeroDivisionError):
        win_rate = float("nan")
    # Written as `not` so that a NaN refuses.
    if not MIN_WIN_RATE <= win_rate <= MAX_WIN_RATE:
        low = payoff_ratio(MAX_WIN_RATE)
        high = payoff_ratio(MIN_WIN_RATE)
        raise ValueError(
            f"{payoff!r} is no payoff: give {', '.join(WIN_RATES)}, or the ratio of mean gain to mean loss, "
            f"{low:.2f} to {high:.0f}"
        )
    return win_rate


def draw_payoffs(win_rate: float, trades: int, rng: np.random.Generator) -> Floats:
    """Random returns of trades in standard deviations, mean 0 and variance 1, shape (trades,)."""
    sizes = np.abs(rng.standard_normal(trades))
    gains = rng.random(trades) < win_rate
    ratio = np.sqrt(payoff_ratio(win_rate))
    return np.asarray(np.where(gains, ratio * sizes, -sizes / ratio))
