"""Multiple-testing correction: the effective number of independent trials and the dispersion of results.

A hundred near copies of a model are hardly two trials; counting too few trials lets luck pass, so every
uncertainty raises the count.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.evaluations import MIN_BARS
from clm_core.evidence.track_record import (
    TrackRecord,
    expected_maximum_sharpe,
    probabilistic_sharpe_ratio,
)
from clm_core.market.bars import Floats

DAY = 86_400_000_000_000
"""Length of a day in nanoseconds."""
DAYS_PER_TRIAL = 4
"""Minimum days of returns for each trial of a part counted together: with fewer days, correlations of
independent trials look significant."""
MAX_BARS = 2**40
"""Upper limit of the search for a passing length, in bars."""
MAX_SHARPE = 100.0
"""Upper limit of the search for a passing Sharpe ratio of a bar."""


@dataclass(frozen=True, eq=False)
class TrialRecord:
    """Summary of a trial, stored for the count of all trials."""

    sharpe: float
    """Sharpe ratio of a bar; NaN if not measurable, as for a trial without trades."""
    effective_bars: float
    """Number of independent bars with as much information; NaN like `sharpe`."""
    first_day: int
    """First tested day, in days since 1970-01-01 UTC."""
    daily: Floats
    """Sum of the returns of each day from the first to the last, shape (n_days,); NaN for days without
    bars."""


@dataclass(frozen=True)
class TrialCount:
    """Number of trials of a market and timeframe, with the dispersion of the results."""

    trials: int
    effective: float
    """Effective number of independent trials."""
    dispersion: float
    """`dispersion` of the trials' Sharpe ratios of a bar."""

    def variance(self, effective_bars: float) -> float:
        """`sharpe_variance` for a record of `effective_bars` independent bars."""
        return sharpe_variance(self.dispersion, effective_bars)

    def expected_maximum(self, effective_bars: float) -> float:
        """Trial luck: expected maximum Sharpe ratio of a bar among the trials without an edge, see
        `track_record.expected_maximum_sharpe`."""
        return expected_maximum_sharpe(self.variance(effective_bars), self.effective)


def trial_record(times: NDArray[np.int64], returns: Floats, record: TrackRecord) -> TrialRecord:
    """Record of a trial, with daily returns: enough for correlations, in a fraction of the space.

    Args:
        times: bar-open times, nanoseconds since 1970-01-01 UTC, ascending, shape (n_bars,), at least one bar.
        returns: out-of-sample returns after costs, as fractions, shape (n_bars,).
        record: track record of the returns.
    """
    days = times // DAY
    first = int(days[0])
    daily = np.full(int(days[-1]) - first + 1, np.nan)
    traded, starts = np.unique(days, return_index=True)
    daily[traded - first] = np.add.reduceat(returns, starts)
    return TrialRecord(record.sharpe, record.effective_bars, first, daily)


def count_trials(records: Sequence[TrialRecord], min_trials: float = 1.0) -> TrialCount:
    """Effective number of independent trials.

    Trials are counted in parts of n_days / `DAYS_PER_TRIAL` trials, in the order given, and the counts added
    up: correlations between parts are ignored, which can only raise the count. A trial without a Sharpe ratio
    counts as a trial, but not for the dispersion.

    Args:
        records: all trials of the market and timeframe, the judged trial included.
        min_trials: minimum number of independent trials to presume.
    """
    returns = aligned(records)
    size = max(1, len(returns) // DAYS_PER_TRIAL)
    parts = [returns[:, first : first + size] for first in range(0, len(records), size)]
    effective = sum(effective_trials(trial_correlations(part)) for part in parts)
    measured = [record for record in records if math.isfinite(record.sharpe)]
    spread = dispersion(
        np.array([record.sharpe for record in measured]),
        np.array([record.effective_bars for record in measured]),
    )
    return TrialCount(len(records), max(effective, min_trials), spread)


def bars_to_pass(record: TrackRecord, trials: TrialCount, confidence: float) -> float:
    """Total number of bars at which the deflated Sharpe ratio reaches `confidence`, at an unchanged rate.

    The minimum track record length (Bailey & Lopez de Prado 2012) with the trial luck as the benchmark, which
    falls as the record grows.

    Returns:
        Bars, the present bars included; inf if never, NaN for a record without a Sharpe ratio.
    """
    if not record.measured or not math.isfinite(trials.effective):
        return math.nan

    def passes(bars: int) -> bool:
        longer = replace(record, bars=bars, effective_bars=record.effective_bars / record.bars * bars)
        return (
            probabilistic_sharpe_ratio(longer, trials.expected_maximum(longer.effective_bars)) >= confidence
        )

    few = 1
    many = MAX_BARS
    if not passes(many):
        return math.inf
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if passes(middle) else (middle, many)
    return float(many)


def sharpe_to_pass(record: TrackRecord, trials: TrialCount, confidence: float) -> float:
    """Smallest Sharpe ratio of a bar at which the deflated Sharpe ratio reaches `confidence`, with the length
    and the other moments of the record unchanged; inf if no ratio up to `MAX_SHARPE` suffices."""

    def passes(sharpe: float) -> bool:
        other = replace(record, sharpe=sharpe)
        benchmark = trials.expected_maximum(other.effective_bars)
        return probabilistic_sharpe_ratio(other, benchmark) >= confidence

    return first_passing(passes, 0.0, MAX_SHARPE)


def first_passing(passes: Callable[[float], bool], low: float, high: float) -> float:
    """Smallest value at which a monotone condition holds, by bisection; inf if beyond `high`."""
    if not passes(high):
        return math.inf
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def aligned(records: Sequence[TrialRecord]) -> Floats:
    """Daily returns on a common axis of days, shape (n_days, n_trials); NaN on days a trial was not
    tested."""
    first = min(record.first_day for record in records)
    last = max(record.first_day + len(record.daily) for record in records)
    returns = np.full((last - first, len(records)), np.nan)
    for column, record in enumerate(records):
        start = record.first_day - first
        returns[start : start + len(record.daily), column] = record.daily
    return returns


def trial_correlations(returns: Floats) -> Floats:
    """Pairwise correlations over the common bars, shape (n_trials, n_trials).

    0, as for independent trials, for pairs with fewer than `MIN_BARS` common bars or a constant member.

    Args:
        returns: out-of-sample returns as fractions on one time axis, shape (n_bars, n_trials); NaN on bars a
            trial was not tested on.

    Raises:
        ValueError: a return is infinite.
    """
    if np.isinf(returns).any():
        raise ValueError("returns must not be infinite: mark bars a trial was not tested on with NaN")
    tested = ~np.isnan(returns)
    centred = returns - np.nansum(returns, axis=0) / np.maximum(tested.sum(axis=0), 1)
    values = np.where(tested, centred, 0.0)
    held = tested.astype(np.float64)
    shared = held.T @ held
    enough = shared >= MIN_BARS
    bars = np.where(enough, shared, 1.0)
    # row i, column j: moments of trial i over the bars common with trial j
    means = values.T @ held / bars
    variances = (values**2).T @ held / bars - means**2
    products = variances * variances.T
    known = enough & (products > 0.0)
    covariances = values.T @ values / bars - means * means.T
    correlations = np.where(known, covariances / np.sqrt(np.where(known, products, 1.0)), 0.0)
    np.fill_diagonal(correlations, 1.0)
    return np.clip(correlations, -1.0, 1.0)


def effective_trials(correlations: Floats) -> float:
    """Effective number of independent trials, from 1 to n_trials; NaN for correlations that are not finite.

    (sum of the square roots of the eigenvalues) ** 2 / sum of the eigenvalues, with negative eigenvalues as 0
    (Galwey 2009, "A new measure of the effective number of tests", Genetic Epidemiology 33). In every
    simulated pattern the number exceeds the number implied by the expected maximum and, unlike the mean
    correlation (Bailey & Lopez de Prado 2014), reflects clusters; other eigenvalue counts fall below the
    implied number: see the table in docs/decisions/0001-evidence.md. The correlations should come from more
    bars than trials.

    Args:
        correlations: symmetric matrix, shape (n_trials, n_trials), see `trial_correlations`.
    """
    if not np.isfinite(correlations).all():
        return math.nan
    eigenvalues = np.maximum(np.linalg.eigvalsh(correlations), 0.0)
    return float(np.sqrt(eigenvalues).sum() ** 2 / eigenvalues.sum())


def dispersion(sharpes: Floats, effective_bars: Floats) -> float:
    """Variance (n - 1) of the trials' Sharpe ratios of a bar in excess of sampling error, at least 0.0.

    Sampling error explains the mean of 1 / (effective_bars - 1) (DerSimonian & Laird 1986, "Meta-analysis in
    clinical trials", Controlled Clinical Trials 7(3), with equal weights). Similar trials, which
    `effective_trials` accounts for, give 0.0. 0.0 for fewer than two trials; NaN for a trial without a Sharpe
    ratio.

    Args:
        sharpes: Sharpe ratio of a bar of each trial, shape (n_trials,).
        effective_bars: effective bars of each trial, above 1, shape (n_trials,).
    """
    if len(sharpes) < 2:
        return 0.0
    by_chance = np.mean(1.0 / (effective_bars - 1.0))
    return float(np.maximum(np.var(sharpes, ddof=1) - by_chance, 0.0))


def sharpe_variance(spread: float, effective_bars: float) -> float:
    """Variance of a bar's Sharpe ratio among trials without an edge, for
    `track_record.deflated_sharpe_ratio`: the sampling variance 1 / (effective_bars - 1) plus the dispersion
    of the trials.

    NaN for a record without a Sharpe ratio.

    Args:
        spread: `dispersion` of the trials.
        effective_bars: effective bars of the judged record.
    """
    return 1.0 / (effective_bars - 1.0) + spread if effective_bars > 1.0 else math.nan
