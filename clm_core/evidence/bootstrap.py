"""Intervals for Sharpe ratios by the stationary bootstrap (Politis & Romano 1994).

A resample is a sequence of blocks of neighbouring bars, as long as the series: every block starts anywhere,
has a geometric length and wraps around at the end of the series. A Sharpe ratio needs only the sums of the
values and of the squares of a resample, so that blocks are never copied: with running totals of both, a block
costs four look-ups, whatever the length.

Sharpe ratios are per bar. Series that `track_record.standardised` cannot measure give NaN.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.domain.evaluations import IntervalEstimate
from clm_core.evidence.track_record import autocovariances, influence, standardised
from clm_core.market.bars import Floats

Indices = NDArray[np.uint32]
"""Row numbers; unsigned, so that no look-up checks for negative indices."""

SEED = 0
TABLE_RESAMPLES = 500
"""Resamples of an interval in a table with many ratios: the ends vary by about 4 % of the width."""
STEPS = 2**13
HALF = np.uint64(32)
LOW_HALF = np.uint64(2**32 - 1)
EXPONENTIALS = -np.log1p(-np.arange(STEPS) / STEPS)
"""Exponential variable of rate 1 at the beginning of each step of a uniform number, shape (STEPS,)."""
STEP_BITS = np.uint64(19)
"""Shift that leaves the `STEPS` highest values of 32 bits."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ONE = np.uint64(1)
TWO = np.uint64(2)
MIXED_AT_ONCE = 1024
"""Blocks drawn before the first of them is added up."""


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    estimate: float
    """Estimate from the series, without resampling."""


NOT_MEASURED = Interval(math.nan, math.nan, math.nan)


def sharpe_interval(returns: Floats, confidence: float, resamples: int, rng: np.random.Generator) -> Interval:
    """Two-sided percentile interval of the Sharpe ratio of a bar; NaN for series without a Sharpe ratio.

    Args:
        returns: returns as fractions, shape (n_bars,).
        confidence: coverage of the interval, 0..1 exclusive.
        resamples: number of resamples; with 2,000 the ends of a 95 % interval vary by about 2 % of the width.
        rng: generator of the blocks; the same state gives the same interval.
    """
    standard = standardised(returns)
    if standard is None:
        return NOT_MEASURED
    block = block_length(influence(*standard))
    return _percentiles(_draws([standard], block, resamples, rng)[0], confidence, standard[1])


def annual_sharpe_interval(returns: Floats, periods_per_year: float, resamples: int = 2000) -> Interval:
    """Interval of 95 % of the annualised Sharpe ratio; the same returns always give the same interval."""
    return mean_sharpe_interval([returns], periods_per_year, resamples)


def mean_sharpe_interval(
    series: Sequence[Floats], periods_per_year: float, resamples: int = 2000
) -> Interval:
    """Interval of 95 % of the mean of the annualised Sharpe ratios of series over the same bars.

    All series are resampled in the same blocks, so that common movements do not average out. The
    block length is that of the mean of the influence functions.

    Args:
        series: returns as fractions, shape (n_bars,) each; at least one series.

    Returns:
        NaN where a series has no Sharpe ratio, see `track_record.standardised`.
    """
    standards = [standardised(returns) for returns in series]
    known = [each for each in standards if each is not None]
    if len(known) < len(standards):
        return NOT_MEASURED
    block = block_length(np.mean([influence(*each) for each in known], axis=0))
    draws = np.mean(_draws(known, block, resamples, np.random.default_rng(SEED)), axis=0)
    a_bar = _percentiles(draws, 0.95, float(np.mean([sharpe for _, sharpe in known])))
    yearly = math.sqrt(periods_per_year)
    return Interval(a_bar.low * yearly, a_bar.high * yearly, a_bar.estimate * yearly)


def sharpe_estimate(
    ratio: float, series: Sequence[Floats], periods_per_year: float
) -> IntervalEstimate | None:
    """An annualised Sharpe ratio, or the mean of several, with the interval of 95 %; None without one.

    Args:
        ratio: the ratio as shown.
        series: returns behind the ratio, as for `mean_sharpe_interval`.
    """
    interval = mean_sharpe_interval(series, periods_per_year, TABLE_RESAMPLES)
    if math.isnan(interval.low):
        return None
    return IntervalEstimate(value=ratio, low=interval.low, high=interval.high)


def difference_interval(
    challenger: Floats, champion: Floats, confidence: float, resamples: int, rng: np.random.Generator
) -> Interval:
    """Interval of the challenger's Sharpe ratio minus the champion's on the same bars, shape (n_bars,) each.

    Both series are resampled in the same blocks, so that common movements cancel out.
    """
    _require_same_bars(challenger, champion)
    ours = standardised(challenger)
    theirs = standardised(champion)
    if ours is None or theirs is None:
        return NOT_MEASURED
    block = block_length(influence(*ours) - influence(*theirs))
    first, second = _draws([ours, theirs], block, resamples, rng)
    return _percentiles(first - second, confidence, ours[1] - theirs[1])


def total_return_interval(
    ours: Floats, theirs: Floats, confidence: float, resamples: int, rng: np.random.Generator
) -> Interval:
    """Interval of the total return of one strategy minus that of another on the same bars.

    Both series are resampled in the same blocks, so that common movements cancel out; the returns of a
    resample are compounded.

    Args:
        ours: returns as fractions, shape (n_bars,).
        theirs: returns of the other strategy, shape (n_bars,).

    Returns:
        NaN for equal returns, fewer than two bars, and after a total loss.
    """
    _require_same_bars(ours, theirs)
    if len(ours) < 2 or np.array_equal(ours, theirs) or not min(ours.min(), theirs.min()) > -1.0:
        return NOT_MEASURED
    logs = np.log1p(ours), np.log1p(theirs)
    block = block_length(logs[0] - logs[1])
    rate = -math.log1p(-1.0 / block) if block > 1.0 else math.inf
    totals = _running_totals(logs)
    seed = rng.integers(2**64, dtype=np.uint64)
    our_sums, their_sums = _resampled_sums(totals, rate, _lengths(rate), resamples, seed)
    estimate = math.expm1(logs[0].sum()) - math.expm1(logs[1].sum())
    return _percentiles(np.expm1(our_sums) - np.expm1(their_sums), confidence, estimate)


def sharpe_draws(returns: Floats, block: float, resamples: int, rng: np.random.Generator) -> Floats:
    """Sharpe ratio of a bar of each resample, shape (resamples,); 0.0 for a constant resample.

    Args:
        returns: returns as fractions, shape (n_bars,), measurable by `track_record.standardised`.
        block: mean length of a block in bars, at least 1.

    Raises:
        ValueError: the returns have no Sharpe ratio, or the block is shorter than 1.
    """
    return _draws([_measurable(returns)], block, resamples, rng)[0]


def difference_draws(
    challenger: Floats, champion: Floats, block: float, resamples: int, rng: np.random.Generator
) -> Floats:
    """Challenger's Sharpe ratio of a bar minus the champion's in each resample, shape (resamples,)."""
    _require_same_bars(challenger, champion)
    ours, theirs = _draws([_measurable(challenger), _measurable(champion)], block, resamples, rng)
    return np.asarray(ours - theirs)


def resampled_moments(z: Floats, resamples: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Mean and standard deviation (n - 1) of resamples of single values, shape (resamples,) each.

    Args:
        z: standardised values, shape (n,), see `track_record.standardised`.
    """
    n = len(z)
    totals = _running_totals([z, z**2])
    seed = rng.integers(2**64, dtype=np.uint64)
    total, squares = _resampled_sums(totals, math.inf, _lengths(math.inf), resamples, seed)
    variance = np.maximum(squares - total**2 / n, 0.0) / (n - 1)
    # rounding errors of the running totals
    return total / n, np.sqrt(np.where(variance > 1e-12, variance, 0.0))


def block_length(values: Floats) -> float:
    """Mean block length, in bars, with the least error for the mean of `values`, shape (n,).

    Politis & White (2004, section 3) as corrected by Patton, Politis & White (2009); between 1 and
    min(3 sqrt(n), n / 3), and 1.0 for constant values.
    """
    n = len(values)
    quiet_run = max(5, int(math.log10(n)))
    longest = math.ceil(math.sqrt(n)) + quiet_run
    covariances = autocovariances(values - values.mean(), longest)
    if covariances[0] == 0.0:
        return 1.0
    lags = min(2 * _first_quiet_lag(covariances / covariances[0], n, quiet_run), longest)
    lag = np.arange(-lags, lags + 1)
    weighted = np.minimum(1.0, 2.0 * (1.0 - np.abs(lag) / lags)) * covariances[np.abs(lag)]
    bend = np.abs(lag) @ weighted
    level = weighted.sum()
    best = (bend / level) ** 2 * n
    return float(min(max(best ** (1.0 / 3.0), 1.0), math.ceil(min(3.0 * math.sqrt(n), n / 3.0))))


def _first_quiet_lag(correlations: Floats, n: int, quiet_run: int) -> int:
    """First lag of `quiet_run` negligible autocorrelations in a row, or the number of lags."""
    quiet = np.abs(correlations) < 2.0 * math.sqrt(math.log10(n) / n)
    run = 0
    # a few lags as a rule, in a tenth of the time of windows over all of them
    for lag, is_quiet in enumerate(quiet.tolist()):
        run = run + 1 if is_quiet else 0
        if run == quiet_run:
            return lag - quiet_run + 1
    return len(correlations)


def _percentiles(draws: Floats, confidence: float, estimate: float) -> Interval:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"the confidence must lie between 0 and 1, not be {confidence}")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(float(low), float(high), estimate)


def _require_same_bars(challenger: Floats, champion: Floats) -> None:
    if challenger.shape != champion.shape:
        raise ValueError(
            f"challenger has {len(challenger)} bars, champion {len(champion)}: judge both on the same bars"
        )


def _draws(
    standards: Sequence[tuple[Floats, float]], block: float, resamples: int, rng: np.random.Generator
) -> list[Floats]:
    """Sharpe ratios of a bar of every series, in the same resamples, shape (resamples,) each.

    Args:
        standards: the series by `track_record.standardised`, shape (n_bars,) each.
    """
    if not block >= 1.0:
        raise ValueError(f"the mean block length must be at least 1 bar, not {block}")
    totals = _running_totals([values for z, _ in standards for values in (z, z**2)])
    # a length is one more than an exponential variable of this rate rounded down: geometric, mean `block`
    rate = -math.log1p(-1.0 / block) if block > 1.0 else math.inf
    sums = _resampled_sums(totals, rate, _lengths(rate), resamples, rng.integers(2**64, dtype=np.uint64))
    n = len(totals) // 2
    return [
        _sharpe(sums[2 * k], sums[2 * k + 1], sharpe * math.sqrt(n / (n - 1)), n)
        for k, (_, sharpe) in enumerate(standards)
    ]


def _measurable(returns: Floats) -> tuple[Floats, float]:
    standard = standardised(returns)
    if standard is None:
        raise ValueError("the returns have no Sharpe ratio to resample: see track_record.standardised")
    return standard


def _running_totals(series: Sequence[Floats]) -> Floats:
    """Sums of all values of each series before each place of the series followed by a copy, shape
    (2 n + 1, n_series): those of a row beside each other in memory."""
    n = len(series[0])
    totals = np.empty((2 * n + 1, len(series)))
    totals[0] = 0.0
    for each, values in zip(totals.T, series, strict=True):
        np.cumsum(values, out=each[1 : n + 1])
    np.add(totals[n], totals[1 : n + 1], out=totals[n + 1 :])
    return totals


def _lengths(rate: float) -> Indices:
    """Block length for each of `STEPS` equal steps of a uniform number; 0 for steps with several lengths."""
    first = np.floor(EXPONENTIALS / rate) + 1.0
    lengths = first.astype(np.uint32)
    lengths[:-1][first[:-1] != first[1:]] = 0
    lengths[-1] = 0
    return lengths


def _sharpe(total: Floats, squares: Floats, centre: float, n: int) -> Floats:
    """Sharpe ratios of resamples from the sums of the standardised returns, shape (resamples,).

    Args:
        total: sums of the returns, shape (resamples,).
        squares: sums of the squared returns, shape (resamples,).
        centre: mean subtracted by standardising, in standard deviations (n).
        n: bars in a resample.
    """
    variance = (squares - total**2 / n) / (n - 1)
    varies = variance > 1e-12
    return np.where(varies, (centre + total / n) / np.sqrt(np.where(varies, variance, 1.0)), 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _resampled_sums(totals: Floats, rate: float, lengths: Indices, resamples: int, seed: np.uint64) -> Floats:
    """Sum of each series in each resample, shape (n_series, resamples).

    Args:
        totals: `_running_totals` of an even number of series, shape (2 n + 1, n_series).
    """
    n = len(totals) // 2
    n_series = totals.shape[1]
    if n_series == 2:
        if rate == np.inf:
            return _sums_of_single_rows(totals, resamples, seed)
        return _sums_of_a_pair(totals.ravel(), rate, lengths, resamples, seed)
    sums = np.empty((n_series, resamples))
    starts = np.empty(n, np.uint32)
    ends = np.empty(n, np.uint32)
    for draw in range(resamples):
        blocks, seed, sums[0, draw], sums[1, draw] = _draw_blocks(starts, ends, totals, rate, lengths, seed)
        for series in range(2, n_series, 2):
            first = 0.0
            second = 0.0
            for block in range(blocks):
                start = starts[block]
                end = ends[block]
                first += totals[end, series] - totals[start, series]
                second += totals[end, series + 1] - totals[start, series + 1]
            sums[series, draw] = first
            sums[series + 1, draw] = second
    return sums


@njit(cache=True, nogil=True, error_model="numpy")
def _sums_of_a_pair(totals: Floats, rate: float, lengths: Indices, resamples: int, seed: np.uint64) -> Floats:
    """`_resampled_sums` of a pair of series, in the blocks of `_draw_blocks`.

    The random bits of many blocks are mixed at once, in vector instructions.

    Args:
        totals: totals of both series in turn, shape (4 n + 2,).
    """
    n = len(totals) // 4
    sums = np.empty((2, resamples))
    starts = np.empty(MIXED_AT_ONCE, np.uint32)
    low_bits = np.empty(MIXED_AT_ONCE, np.uint32)
    block = np.uint64(MIXED_AT_ONCE)
    state = seed + GOLDEN
    for draw in range(resamples):
        left = np.int64(n)
        first = 0.0
        second = 0.0
        while True:
            if block == MIXED_AT_ONCE:
                for k in range(MIXED_AT_ONCE):
                    bits = _mixed(state + np.uint64(k) * GOLDEN)
                    starts[k] = _row(bits, n)
                    low_bits[k] = bits & LOW_HALF
                state += np.uint64(MIXED_AT_ONCE) * GOLDEN
                block = np.uint64(0)
            start = np.uint64(starts[block])
            length = _length(low_bits[block], rate, lengths)
            block += ONE
            if length >= left:
                break
            end = start + np.uint64(length)
            first += totals[TWO * end] - totals[TWO * start]
            second += totals[TWO * end + ONE] - totals[TWO * start + ONE]
            left -= length
        end = start + np.uint64(left)
        sums[0, draw] = first + (totals[TWO * end] - totals[TWO * start])
        sums[1, draw] = second + (totals[TWO * end + ONE] - totals[TWO * start + ONE])
    return sums


@njit(cache=True, nogil=True, error_model="numpy")
def _sums_of_single_rows(totals: Floats, resamples: int, seed: np.uint64) -> Floats:
    """`_resampled_sums` of a pair of series in blocks of one row.

    The sums of two resamples are added up side by side: neither addition waits for the other.
    """
    n = len(totals) // 2
    values = np.empty(2 * n)
    for k in range(n):
        values[2 * k] = totals[k + 1, 0] - totals[k, 0]
        values[2 * k + 1] = totals[k + 1, 1] - totals[k, 1]
    sums = np.empty((2, resamples + resamples % 2))
    rows = np.empty(2 * n, np.uint32)
    state = seed + GOLDEN
    for draw in range(0, resamples, 2):
        for k in range(2 * n):
            rows[k] = _row(_mixed(state + np.uint64(k) * GOLDEN), n)
        state += np.uint64(2 * n) * GOLDEN
        first = 0.0
        second = 0.0
        first_of_next = 0.0
        second_of_next = 0.0
        for k in range(n):
            row = np.uint64(rows[k])
            first += values[TWO * row]
            second += values[TWO * row + ONE]
            row_of_next = np.uint64(rows[n + k])
            first_of_next += values[TWO * row_of_next]
            second_of_next += values[TWO * row_of_next + ONE]
        sums[0, draw] = first
        sums[1, draw] = second
        sums[0, draw + 1] = first_of_next
        sums[1, draw + 1] = second_of_next
    return sums[:, :resamples].copy()


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_blocks(
    starts: Indices, ends: Indices, totals: Floats, rate: float, lengths: Indices, seed: np.uint64
) -> tuple[int, np.uint64, float, float]:
    """Fill in the first row and the row after the last of each block of a resample.

    Returns:
        The number of blocks, the state of the generator afterwards, and the sums of the first two series:
        the processor looks up the totals of a block while it draws the next one.
    """
    n = len(starts)
    left = np.int64(n)
    blocks = 0
    first = 0.0
    second = 0.0
    while left > 0:
        seed += GOLDEN
        start, length = _block(_mixed(seed), n, left, rate, lengths)
        end = start + np.uint64(length)
        first += totals[end, 0] - totals[start, 0]
        second += totals[end, 1] - totals[start, 1]
        starts[blocks] = start
        ends[blocks] = end
        left -= length
        blocks += 1
    return blocks, seed, first, second


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _block(
    bits: np.uint64, n: int, left: np.int64, rate: float, lengths: Indices
) -> tuple[np.uint64, np.int64]:
    """First row of a block, and its length, at most `left`."""
    return _row(bits, n), min(_length(bits & LOW_HALF, rate, lengths), left)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _row(bits: np.uint64, n: int) -> np.uint64:
    """Row 0 to n - 1 by the high half of the bits."""
    return ((bits >> HALF) * np.uint64(n)) >> HALF


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _length(low: np.uint64, rate: float, lengths: Indices) -> np.int64:
    """Length of a block by the low half of the bits, whatever the rows left."""
    length = np.int64(lengths[low >> STEP_BITS])
    if length == 0:
        length = np.int64(-math.log1p(-np.float64(low) / 2.0**32) / rate) + 1
    return length


@njit(cache=True, nogil=True, inline="always")
def _mixed(state: np.uint64) -> np.uint64:
    """64 random bits from a counter (SplitMix64: Steele, Lea & Flood 2014), three times as fast as a
    `numpy.random.Generator`."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
