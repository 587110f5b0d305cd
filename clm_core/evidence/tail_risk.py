"""Sequential test of the tail: have the losses of the worst bars grown beyond those of the backtest?

Returns are divided by their trailing volatility, so that a wilder market alone raises no alarm. The
volatility is by mean absolute returns, less sensitive to large losses than squares. The excess of a bar is
the part of the loss beyond q, the loss reached by one bar in ten of the backtest. With the mean excess e of
the backtest, the statistic is Page's cumulative sum (Page 1954)

    S(t) = max(0, S(t - 1) + min(excess(t) / e, `CLIP`) - `ALLOWANCE`)

in units of e: falling while the excess is about the backtest's, growing once the excess has more than
doubled. An alarm is the first bar on which S reaches a threshold. The threshold is the largest S of a quarter
exceeded in one quarter of a hundred, over quarters drawn from the backtest by the stationary bootstrap
(Politis & Romano 1994), times `MARGIN` for the bars that the trailing volatility needs to follow a market.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.market.bars import Floats

WORST = 0.10
"""Share of the bars of the backtest that are in the tail."""
HALF_LIFE = 24
"""Bars with a position after which a return has half its weight in the trailing volatility."""
WARM_UP = 48
"""Bars with a position before the first standardised return."""
ALLOWANCE = 2.0
"""Mean excess, in units of the backtest's, at which the statistic neither falls nor grows on average."""
CLIP = 60.0
"""Largest excess of a single bar: one crash is the hard stop's business, not a change of the tail."""
FALSE_ALARMS = 0.01
"""Share of quarters with an alarm, of a strategy like its backtest."""
MARGIN = 2.0
"""Factor on the threshold: a market whose volatility doubles overnight is no changed tail."""
QUARTERS = 1_000
"""Resampled quarters."""
BLOCK = 24.0
"""Mean block length of the resampling, bars with a position."""
MIN_BARS = 500
"""Bars of the backtest with a position for a reference: fewer have no fifty bars in the tail."""

_NORMAL = math.sqrt(math.pi / 2)
"""Standard deviation over the mean absolute value, of a normal distribution."""
_compiled = njit(cache=True, nogil=True)


@dataclass(frozen=True)
class TailReference:
    """Tail of a backtest, and the threshold of the test, in units of the trailing volatility."""

    tail_from: float
    """Loss from which on a bar belongs to the worst tenth."""
    mean_excess: float
    """Mean over all bars of the loss beyond `tail_from`."""
    threshold: float
    """Value of the statistic at which the alarm is raised."""


@dataclass(frozen=True)
class TailTest:
    """State of the test after the newest bar."""

    bars: int
    """Bars with a position so far."""
    statistic: float
    """S after the newest bar, in units of the backtest's mean excess."""
    threshold: float
    raised_at: int | None
    """Number of the bar with a position, from 1, on which the statistic first reached the threshold."""
    worst_tenth: float
    """Mean loss of the worst tenth of the bars, in units of trailing volatility; NaN for fewer than ten."""


def standardised(returns: Floats, before: Floats | None = None) -> Floats:
    """Returns of the bars with a position over their trailing volatility, shape (n_active,).

    Bars without a return had no position, and are left out. The volatility of a bar is the exponential
    average of the earlier absolute returns, times sqrt(pi / 2), the ratio for normal returns; the first
    `WARM_UP` bars only start the average.

    Args:
        returns: net returns of bars as fractions, shape (n_bars,).
        before: earlier returns, which only start the average, shape (n_earlier,).
    """
    known = np.zeros(0) if before is None else before[before != 0.0]
    active = np.concatenate([known, returns[returns != 0.0]])
    scaled = _over_trailing(active, 0.5 ** (1.0 / HALF_LIFE), WARM_UP)
    return np.asarray(scaled[max(len(known), WARM_UP) :])


def reference_of(backtest: Floats, bars_per_quarter: int, rng: np.random.Generator) -> TailReference | None:
    """Reference of the test; None for a backtest with fewer than `MIN_BARS` bars with a position, or without
    a loss in its worst tenth.

    Args:
        backtest: net returns of the bars of a backtest, as fractions, shape (n_bars,).
        bars_per_quarter: bars with a position in a quarter.
    """
    units = standardised(backtest)
    if len(units) < MIN_BARS:
        return None
    tail_from = -float(np.quantile(units, WORST))
    excess = np.maximum(-units - tail_from, 0.0)
    mean_excess = float(excess.mean())
    if not (tail_from > 0.0 and mean_excess > 0.0):
        return None
    steps = np.minimum(excess / mean_excess, CLIP)
    length = max(bars_per_quarter, 1)
    starts = rng.random((QUARTERS, length)) < 1.0 / BLOCK
    draws = rng.integers(0, len(steps), (QUARTERS, length))
    peaks = _peaks(steps, starts, draws, ALLOWANCE)
    threshold = MARGIN * float(np.quantile(peaks, 1.0 - FALSE_ALARMS))
    return TailReference(tail_from, mean_excess, max(threshold, CLIP))


def tail_test(units: Floats, reference: TailReference) -> TailTest:
    """State of the test on standardised returns.

    Args:
        units: returns over their trailing volatility, oldest first, shape (n_active,); see `standardised`.
    """
    excess = np.maximum(-units - reference.tail_from, 0.0)
    statistic = _cumulative(np.minimum(excess / reference.mean_excess, CLIP), ALLOWANCE)
    reached = np.flatnonzero(statistic >= reference.threshold)
    worst = np.sort(units)[: len(units) // 10]
    return TailTest(
        bars=len(units),
        statistic=float(statistic[-1]) if len(units) else 0.0,
        threshold=reference.threshold,
        raised_at=int(reached[0]) + 1 if len(reached) else None,
        worst_tenth=float(-worst.mean()) if len(worst) else math.nan,
    )


@_compiled
def _over_trailing(active: Floats, decay: float, warm_up: int) -> Floats:
    scaled = np.zeros(len(active))
    total = 0.0
    weight = 0.0
    for row in range(len(active)):
        if row >= warm_up and total > 0.0:
            scaled[row] = active[row] / (_NORMAL * total / weight)
        total = total * decay + abs(active[row])
        weight = weight * decay + 1.0
    return scaled


@_compiled
def _cumulative(steps: Floats, allowance: float) -> Floats:
    path = np.empty(len(steps))
    current = 0.0
    for row in range(len(steps)):
        current = max(0.0, current + steps[row] - allowance)
        path[row] = current
    return path


@_compiled
def _peaks(steps: Floats, starts: NDArray[np.bool_], draws: NDArray[np.int64], allowance: float) -> Floats:
    """Largest value of the statistic in each resampled quarter, shape (n_quarters,)."""
    quarters, length = starts.shape
    peaks = np.zeros(quarters)
    for quarter in range(quarters):
        current = 0.0
        row = draws[quarter, 0]
        for bar in range(length):
            row = draws[quarter, bar] if starts[quarter, bar] else (row + 1) % len(steps)
            current = max(0.0, current + steps[row] - allowance)
            peaks[quarter] = max(peaks[quarter], current)
    return peaks
