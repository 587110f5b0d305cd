"""How many independent trials were made, and how far apart luck throws them.

A hundred near copies of one model are hardly two trials; but counting too few lets luck pass, so every doubt
counts as one more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clm_core.evidence.track_record import (
    MIN_BARS,
    TrackRecord,
    expected_maximum_sharpe,
    probabilistic_sharpe_ratio,
)
from clm_core.market.bars import Floats

DAY = 86_400_000_000_000
"""In nanoseconds."""
DAYS_PER_TRIAL = 4
"""Days of returns for each trial whose correlations are counted together: with fewer, independent trials
begin to look alike."""
MAX_BARS = 2**40
"""Bars that nobody will see."""


@dataclass(frozen=True, eq=False)
class TrialRecord:
    """What is kept of a trial for the count of all."""

    sharpe: float
    """Of a bar; NaN where it could not be measured: a trial that never traded."""
    effective_bars: float
    """Independent bars that would tell as much; NaN like `sharpe`."""
    first_day: int
    """Days since 1970-01-01 UTC of the first one it was tested on."""
    daily: Floats
    """Sum of the returns of each day, from the first to the last, shape (n_days,); NaN where it has none."""


@dataclass(frozen=True)
class TrialCount:
    """How many trials were made for a market and timeframe, and how far apart they are."""

    trials: int
    effective: float
    """Independent trials that would throw up a best one as lucky."""
    dispersion: float
    """`dispersion` of their Sharpe ratios of a bar."""

    def variance(self, effective_bars: float) -> float:
        """As `sharpe_variance`, for a record of so many independent bars."""
        return sharpe_variance(self.dispersion, effective_bars)

    def expected_maximum(self, effective_bars: float) -> float:
        """Sharpe ratio of a bar that the best of them would show without an edge, see
        `evidence.expected_maximum_sharpe`."""
        return expected_maximum_sharpe(self.variance(effective_bars), self.effective)


def trial_record(times: NDArray[np.int64], returns: Floats, record: TrackRecord) -> TrialRecord:
    """Keep a day's returns as one: what trials have in common shows as well, in a hundredth of the space.

    Args:
        times: bar-open times, nanoseconds since 1970-01-01 UTC, ascending, shape (n_bars,), at least one.
        returns: out of sample, after costs, as fractions, shape (n_bars,).
    """
    days = times // DAY
    first = int(days[0])
    daily = np.full(int(days[-1]) - first + 1, np.nan)
    traded, starts = np.unique(days, return_index=True)
    daily[traded - first] = np.add.reduceat(returns, starts)
    return TrialRecord(record.sharpe, record.effective_bars, first, daily)


def count_trials(records: Sequence[TrialRecord], min_trials: float = 1.0) -> TrialCount:
    """How many independent trials these are worth.

    Every `DAYS_PER_TRIAL`-th part of the days at a time, in the order given, and added up: what trials of
    different parts share is not seen, which only ever counts too many. A trial whose Sharpe ratio could not
    be measured counts, but tells nothing of how far apart trials are.

    Args:
        records: all of the market and timeframe, the one under judgement among them.
        min_trials: independent trials to presume at least.
    """
    returns = aligned(records)
    size = max(1, len(returns) // DAYS_PER_TRIAL)
    parts = [returns[:, first : first + size] for first in range(0, len(records), size)]
    effective = sum(effective_trials(trial_correlations(part)) for part in parts)
    measured = [record for record in records if math.isfinite(record.sharpe)]
    apart = dispersion(
        np.array([record.sharpe for record in measured]),
        np.array([record.effective_bars for record in measured]),
    )
    return TrialCount(len(records), max(effective, min_trials), apart)


def bars_to_pass(record: TrackRecord, trials: TrialCount, confidence: float) -> float:
    """Bars, those so far included, after which the deflated Sharpe ratio reaches `confidence` if they go on
    as they did; inf if it never will, NaN where nothing was measured.

    The minimum track record length (Bailey & Lopez de Prado 2012) against the luck of the trials, which grows
    smaller as the record grows longer.
    """
    if not record.measured or not math.isfinite(trials.effective):
        return math.nan

    def passes(bars: int) -> bool:
        longer = replace(record, bars=bars, effective_bars=record.effective_bars / record.bars * bars)
        return (
            probabilistic_sharpe_ratio(longer, trials.expected_maximum(longer.effective_bars)) >= confidence
        )

    few, many = 1, MAX_BARS
    if not passes(many):
        return math.inf
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if passes(middle) else (middle, many)
    return float(many)


def aligned(records: Sequence[TrialRecord]) -> Floats:
    """On one axis of days, shape (n_days, n_trials); NaN where a trial was not tested."""
    first = min(record.first_day for record in records)
    last = max(record.first_day + len(record.daily) for record in records)
    returns = np.full((last - first, len(records)), np.nan)
    for column, record in enumerate(records):
        start = record.first_day - first
        returns[start : start + len(record.daily), column] = record.daily
    return returns


def trial_correlations(returns: Floats) -> Floats:
    """Correlation of every two trials over the bars both have, shape (n_trials, n_trials).

    0, as if independent, for two that share fewer than `MIN_BARS` bars or of which one never varies there.

    Args:
        returns: out-of-sample returns as fractions on one time axis, shape (n_bars, n_trials); NaN where a
            trial was not tested.
    """
    if np.isinf(returns).any():
        raise ValueError("infinite returns do not correlate: mark bars a trial was not tested on with NaN")
    tested = ~np.isnan(returns)
    centred = returns - np.nansum(returns, axis=0) / np.maximum(tested.sum(axis=0), 1)
    values = np.where(tested, centred, 0.0)
    held = tested.astype(np.float64)
    shared = held.T @ held
    enough = shared >= MIN_BARS
    bars = np.where(enough, shared, 1.0)
    # row i, column j: of trial i over the bars that trial j was tested on too
    means = values.T @ held / bars
    variances = (values**2).T @ held / bars - means**2
    products = variances * variances.T
    known = enough & (products > 0.0)
    covariances = values.T @ values / bars - means * means.T
    correlations = np.where(known, covariances / np.sqrt(np.where(known, products, 1.0)), 0.0)
    np.fill_diagonal(correlations, 1.0)
    return np.clip(correlations, -1.0, 1.0)


def effective_trials(correlations: Floats) -> float:
    """Independent trials that would throw up a best one as lucky, from 1 to n_trials.

    (sum of the roots of the eigenvalues) ** 2 over their sum, negative ones as 0 (Galwey 2009, "A new measure
    of the effective number of tests", Genetic Epidemiology 33). In every pattern simulated it stays above the
    number that the luck of the best trial implies and, unlike the mean correlation (Bailey & Lopez de Prado
    2014), it sees clusters; other counts of eigenvalues fall below. docs/decisions/0001-evidence.md has the
    table. The correlations should be of more bars than there are trials.

    Args:
        correlations: symmetric, shape (n_trials, n_trials), as of `trial_correlations`.
    """
    if not np.isfinite(correlations).all():
        return math.nan
    eigenvalues = np.maximum(np.linalg.eigvalsh(correlations), 0.0)
    return float(np.sqrt(eigenvalues).sum() ** 2 / eigenvalues.sum())


def dispersion(sharpes: Floats, effective_bars: Floats) -> float:
    """Variance (n - 1) of trials' Sharpe ratios of a bar beyond what chance gives records of their lengths.

    Chance gives 1 / (effective_bars - 1) each, on average what it explains (DerSimonian & Laird 1986,
    "Meta-analysis in clinical trials", Controlled Clinical Trials 7(3), with equal weights); 0.0 where that
    is all there is: trials that resemble each other stay close together, which `effective_trials` has counted
    already. 0.0 for less than two trials; NaN where one of them could not be measured.

    Args:
        sharpes: one a trial, shape (n_trials,).
        effective_bars: of each trial's record, above 1, shape (n_trials,).
    """
    if len(sharpes) < 2:
        return 0.0
    by_chance = np.mean(1.0 / (effective_bars - 1.0))
    return float(np.maximum(np.var(sharpes, ddof=1) - by_chance, 0.0))


def sharpe_variance(apart: float, effective_bars: float) -> float:
    """Variance of a bar's Sharpe ratio among trials without an edge, for `evidence.deflated_sharpe_ratio`:
    what chance alone gives a record, 1 / (effective_bars - 1), and what sets the trials apart.

    NaN where the record could not be measured.

    Args:
        apart: `dispersion` of the trials.
        effective_bars: of the record under judgement.
    """
    return 1.0 / (effective_bars - 1.0) + apart if effective_bars > 1.0 else math.nan
