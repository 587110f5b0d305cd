"""Exposure-matched null of a version's timing: the same positions, shifted against the bars.

Positions of another time, with the same mean, size, holding periods and turnover, earn the market as well;
timing is the rest. The statistic of a shift by k bars is

    T(k) = sum over t of p(t - k) r(t) / sqrt(sum over t of p(t - k) ** 2 r(t) ** 2)

with positions p and returns r less the means, indices circular. Centred: a rising market lends nothing to a
version mostly long. Studentised: positions small in wild markets (a volatility target) are
compared at equal noise. Both sums of all shifts are circular cross-correlations, exact by the fast Fourier
transform in O(n log n).

Shifts count up to three quarters of the length. The others set the positions shortly before the bars of the
decision: p(t + k) follows r(t) as in a trend rule, whatever the skill, and no trend rule would ever pass.
Costs: shifted positions have the same turnover but for the seam, so that the costs of trading cancel out;
costs of holding that depend on the side belong to r.

Sources: circular shifts as a randomisation of two series, Romano & Tirlea (2022), "Permutation testing for
dependence in time series", Journal of Time Series Analysis 43(5); studentised permutation statistics,
DiCiccio & Romano (2017), "Robust permutation tests for correlation and regression coefficients", Journal of
the American Statistical Association 112.
"""

import math
from collections.abc import Sequence

import numpy as np

from clm_core.market.bars import Floats

MIN_SHIFTED = 100
"""Minimum number of bars: fewer have too few unrelated shifts for a probability of 0.95."""
NO_TIMING = 0.0
"""Probability of timing of positions that never vary."""


def timing_probability(positions: Sequence[Floats], returns: Sequence[Floats]) -> float:
    """Share of the shifts at which the positions do less than unshifted, P(timing), 0..1.

    Uniform for positions without foresight; `NO_TIMING` for constant positions; NaN for fewer than
    `MIN_SHIFTED` bars, values that are not finite, or a market that never moves.

    Args:
        positions: positions of each member of a pool, or of the one market, shape (n_bars,) each.
        returns: return earned by a position of 1 from the execution of the position to that of the next, as
            fractions, shape (n_bars,) each; members on one time axis, 0.0 for both where a member has no bar.
    """
    held = [values - values.mean() for values in map(np.asarray, positions)]
    moved = [values - values.mean() for values in map(np.asarray, returns)]
    if not all(np.isfinite(values).all() for values in (*held, *moved)):
        return math.nan
    if all(_constant(values) for values in positions):
        return NO_TIMING
    if len(held[0]) < MIN_SHIFTED or all(_constant(values) for values in returns):
        return math.nan
    statistics = _shifted_statistics(held, moved)
    others = statistics[1 : 3 * len(held[0]) // 4 + 1]
    # ties, as of positions with a period, count half
    below = np.count_nonzero(others < statistics[0]) + np.count_nonzero(others == statistics[0]) / 2.0
    return float(below / len(others))


def _constant(values: Floats) -> bool:
    return bool(np.ptp(values) <= 1e-12 * max(float(np.abs(values).max()), 1e-300))


def _shifted_statistics(held: Sequence[Floats], moved: Sequence[Floats]) -> Floats:
    """T(k) of each shift k from 0, summed over the members, shape (n_bars,)."""
    members = range(len(held))
    earned = sum(_cross_correlation(held[i], moved[i]) for i in members)
    noise = sum(
        (1.0 if i == j else 2.0) * _cross_correlation(held[i] * held[j], moved[i] * moved[j])
        for i in members
        for j in range(i + 1)
    )
    # rounding may leave a sum of squares of 0 below 0
    floor = 1e-12 * float(np.max(noise))
    return np.asarray(np.asarray(earned) / np.sqrt(np.maximum(noise, floor)))


def _cross_correlation(first: Floats, second: Floats) -> Floats:
    """Sum over t of first(t - k) second(t) for each k, indices circular, shape (n,)."""
    return np.fft.irfft(np.conj(np.fft.rfft(first)) * np.fft.rfft(second), len(first))
