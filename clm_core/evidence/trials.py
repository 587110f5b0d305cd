"""Multiple-testing correction: the effective number of independent trials, and trial luck.

The null is chance: the results of the trials, good or bad, play no part. A hundred near
copies of a model are hardly two trials, and a losing trial is one more trial, no wider chance.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.trials import Trial
from clm_core.evidence.track_record import (
    NORMAL,
    NOT_MEASURED,
    TrackRecord,
    expected_maximum_sharpe,
    probabilistic_sharpe_ratio,
)
from clm_core.market.bars import Floats

DAY = 86_400_000_000_000
"""Length of a day in nanoseconds."""
DRAWS = 2048
"""Draws of the multiplier bootstrap, each used with both signs: the count is certain to about 2 %."""
DAYS_PER_DRAW = 64
"""Days whose multipliers come from one generator; fixed to the calendar, so that a count never changes."""
SEED = 20_140_601
COUNTS = np.geomspace(1.0, 1e7, 300)
"""Numbers of independent trials at which the expected maximum is tabulated."""
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


@dataclass(frozen=True, eq=False)
class TrialSketch:
    """Trials counted as a batch: the largest and the smallest statistic of chance in each draw.

    Enough for the effective number of these trials, alone or together with others; see `effective_counts`.
    """

    trials: int
    highest: NDArray[np.float32]
    """Largest statistic of the trials in each draw, shape (`DRAWS`,)."""
    lowest: NDArray[np.float32]
    """Smallest statistic of the trials in each draw, shape (`DRAWS`,)."""

    @classmethod
    def of(cls, days: NDArray[np.int64], daily: NDArray[Any]) -> "TrialSketch":
        """Sketch of trials on the same days. A trial with constant returns, as one without a trade, has the
        statistic 0: its returns are known.

        Args:
            days: days with bars, counted from 1970-01-01 UTC, ascending, shape (n_days,).
            daily: sum of the returns of each day, shape (n_trials, n_days), at least one trial, finite.
        """
        statistics = _directions(daily) @ _multipliers(np.ascontiguousarray(days, np.int64).tobytes())
        return cls(len(daily), statistics.max(axis=0), statistics.min(axis=0))

    @classmethod
    def merged(cls, sketches: "Sequence[TrialSketch]") -> "TrialSketch":
        """Sketch of all trials of several batches, at least one."""
        return cls(
            sum(each.trials for each in sketches),
            np.max([each.highest for each in sketches], axis=0),
            np.min([each.lowest for each in sketches], axis=0),
        )

    @property
    def effective(self) -> float:
        """Effective number of independent trials, 1 to `trials`."""
        return min(float(self.trials), max(1.0, float(_implied(self.highest, self.lowest))))


def statistics_of(record: TrackRecord) -> dict[str, Any]:
    """Fields of a `Trial` that are statistics of the returns."""
    return asdict(record)


def record_of(trial: Trial | None) -> TrackRecord:
    """Track record of a counted trial; not measured without a trial."""
    if trial is None:
        return NOT_MEASURED
    return TrackRecord(**trial.model_dump(include={field.name for field in fields(TrackRecord)}))


@dataclass(frozen=True)
class TrialCount:
    """Number of trials of a market, and the variance beyond chance that earlier verdicts allowed for."""

    trials: int
    effective: float
    """Effective number of independent trials, see `effective_counts`."""
    dispersion: float = 0.0
    """Variance of a bar's Sharpe ratio beyond chance in a verdict of a release that took the trials'
    dispersion for luck; 0.0 for every count made since."""
    forward_bars: float = 0.0
    """Number of independent bars at the end of the record with registered versions followed forward, without
    a choice among trials."""
    side_by_side: float = 1.0
    """Number of recipes followed on the forward bars."""

    def variance(self, effective_bars: float) -> float:
        """Variance of a bar's Sharpe ratio without an edge, for a record of `effective_bars` independent
        bars: 1 / (effective_bars - 1) by chance; NaN for a record without a Sharpe ratio."""
        return 1.0 / (effective_bars - 1.0) + self.dispersion if effective_bars > 1.0 else math.nan

    def expected_maximum(self, effective_bars: float) -> float:
        """Trial luck: expected maximum Sharpe ratio of a bar among the trials without an edge, see
        `track_record.expected_maximum_sharpe`.

        Of a record with forward bars, the mean over all bars of the luck of the best of all trials on the
        bars before and of the best of the recipes followed side by side on the forward bars.
        """
        variance = self.variance(effective_bars)
        chosen = expected_maximum_sharpe(variance, self.effective)
        if self.forward_bars <= 0.0 or self.dispersion > 0.0:
            return chosen
        share = min(self.forward_bars / effective_bars, 1.0)
        followed = expected_maximum_sharpe(variance, self.side_by_side)
        return math.sqrt(1.0 - share) * chosen + math.sqrt(share) * followed

    def after(self, effective_bars: float) -> "TrialCount":
        """The count for a record with so many more independent bars, all of them forward bars."""
        return replace(self, forward_bars=max(self.forward_bars + effective_bars, 0.0))


def trial_record(times: NDArray[np.int64], returns: Floats, record: TrackRecord) -> TrialRecord:
    """Record of a trial, with daily returns: enough for correlations, in a fraction of the space.

    Args:
        times: bar-open times, nanoseconds since 1970-01-01 UTC, ascending, shape (n_bars,), at least one bar.
        returns: out-of-sample returns after costs, as fractions, shape (n_bars,).
        record: track record of the returns.
    """
    traded, sums = daily_sums(times, returns)
    first = int(traded[0])
    daily = np.full(int(traded[-1]) - first + 1, np.nan)
    daily[traded - first] = sums
    return TrialRecord(record.sharpe, record.effective_bars, first, daily)


def daily_sums(times: NDArray[np.int64], returns: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Days with bars, counted from 1970-01-01 UTC, and the sum of the returns of each, shape (n_days,) each.

    Args:
        times, returns: as in `trial_record`.
    """
    days, starts = np.unique(times // DAY, return_index=True)
    return days, np.add.reduceat(returns, starts)


def count_trials(
    records: Sequence[TrialRecord], min_trials: float = 1.0, search: TrialSketch | None = None
) -> TrialCount:
    """Effective number of independent trials, at least `min_trials`; see `effective_counts`.

    Args:
        records: all trials of the market, the judged trial included, oldest first.
        min_trials: minimum number of independent trials to presume.
        search: trials of the searches of strategies behind the judged parameters, if any.
    """
    trials = len(records) + (0 if search is None else search.trials)
    return TrialCount(trials, max(float(effective_counts(records, search)[-1]), min_trials))


def effective_counts(records: Sequence[TrialRecord], search: TrialSketch | None = None) -> Floats:
    """Effective number of independent trials among the first trial, the first two, ..., shape (n_trials,).

    The number of independent trials with the same expected maximum as these trials without an edge. The
    expectation comes from a multiplier bootstrap of the maximum over the centred daily returns (White 2000,
    "A reality check for data snooping", Econometrica 68(5); studentised: Romano & Wolf 2005, "Stepwise
    multiple testing as formalized data snooping", Econometrica 73(4)): every day of the calendar has a
    standard normal multiplier, and the statistic of a trial is the sum of multiplier times centred return
    over the square root of the sum of squares. Neither the mean nor the volatility of a trial enters. Copies
    have the same statistic and add nothing; trials of days that do not meet are independent.

    Three properties hold exactly, since a trial's statistic never depends on other trials: a further trial
    never lowers the count, adds at most 1, and changes no earlier count. A trial with unknown or constant
    returns adds 1 like an unrelated one.

    Args:
        records: trials, oldest first, at least one.
        search: trials counted as a batch before the first of the records, if any.
    """
    statistics = chance_statistics(records)
    first = statistics[0] if search is None else search.highest
    highest = first.copy()
    lowest = first.copy() if search is None else search.lowest.copy()
    counts = np.empty(len(records))
    count = 0.0 if search is None else search.effective
    for place, drawn in enumerate(statistics):
        np.maximum(highest, drawn, out=highest)
        np.minimum(lowest, drawn, out=lowest)
        count = min(count + 1.0, max(count, float(_implied(highest, lowest))))
        counts[place] = count
    return counts


def _implied(highest: NDArray[np.float32], lowest: NDArray[np.float32]) -> float:
    """Number of independent trials with the expected maximum of the draws."""
    # the multipliers with the opposite sign count too: a single trial has an expectation of exactly 0
    expected = (highest.mean(dtype=np.float64) - lowest.mean(dtype=np.float64)) / 2.0
    return float(np.interp(expected, expected_maxima(), COUNTS))


def chance_statistics(records: Sequence[TrialRecord]) -> NDArray[np.float32]:
    """Statistic of each trial in each draw without an edge, standard normal, shape (n_trials, `DRAWS`)."""
    first = min(record.first_day for record in records) // DAYS_PER_DRAW
    last = max(record.first_day + len(record.daily) for record in records) // DAYS_PER_DRAW
    statistics = np.zeros((len(records), DRAWS), np.float32)
    directions = [_direction(record) for record in records]
    for block in range(first, last + 1):
        begin = block * DAYS_PER_DRAW
        weights = np.zeros((len(records), DAYS_PER_DRAW), np.float32)
        for row, record, direction in zip(weights, records, directions, strict=True):
            start = max(record.first_day, begin)
            stop = min(record.first_day + len(direction), begin + DAYS_PER_DRAW)
            if start < stop:
                row[start - begin : stop - begin] = direction[
                    start - record.first_day : stop - record.first_day
                ]
        if weights.any():
            statistics += weights @ _normal(block, DAYS_PER_DRAW)
    for place, direction in enumerate(directions):
        if not len(direction):
            statistics[place] = _normal(-1 - place, 1)[0]
    return statistics


def _direction(record: TrialRecord) -> Floats:
    """Centred returns of the days, of length 1 as a vector and 0.0 on days without bars, shape (n_days,);
    empty for unknown or constant returns."""
    tested = np.isfinite(record.daily)
    if np.isinf(record.daily).any():
        raise ValueError("returns must not be infinite: mark days a trial was not tested on with NaN")
    days = np.count_nonzero(tested)
    if days < 2:
        return np.empty(0)
    centred = np.where(tested, record.daily, 0.0)
    centred = np.where(tested, centred - centred.sum() / days, 0.0)
    length = float(np.linalg.norm(centred))
    # constant returns leave rounding errors
    if length <= 1e-7 * float(np.abs(record.daily[tested]).max(initial=0.0)) * math.sqrt(days):
        return np.empty(0)
    return centred / length


def _directions(daily: NDArray[Any]) -> NDArray[np.float32]:
    """Centred returns of each trial, of length 1 as a vector, shape (n_trials, n_days); 0.0 for constant
    returns."""
    centred = daily - daily.mean(axis=1, dtype=np.float64, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    # constant returns leave rounding errors
    smallest = 1e-7 * np.abs(daily).max(axis=1, keepdims=True) * math.sqrt(daily.shape[1])
    varies = lengths > smallest
    return np.where(varies, centred / np.where(varies, lengths, 1.0), 0.0).astype(np.float32)


@lru_cache(maxsize=2)
def _multipliers(days: bytes) -> NDArray[np.float32]:
    """Multipliers of days, as in `chance_statistics`, shape (n_days, `DRAWS`).

    Args:
        days: bytes of int64, a key of the cache.
    """
    numbers = np.frombuffer(days, np.int64)
    blocks = numbers // DAYS_PER_DRAW
    parts = [
        _normal(int(block), DAYS_PER_DRAW)[numbers[blocks == block] - block * DAYS_PER_DRAW]
        for block in np.unique(blocks)
    ]
    multipliers = np.concatenate(parts)
    multipliers.setflags(write=False)
    return multipliers


@lru_cache(maxsize=64)
def _normal(block: int, rows: int) -> NDArray[np.float32]:
    """Standard normal multipliers of a block of days, or for block -1 - k of the unknown trial k; always the
    same, shape (rows, `DRAWS`)."""
    # SeedSequence takes no negative numbers
    seed = (SEED, int(block < 0), block if block >= 0 else -block)
    drawn = np.random.default_rng(seed).standard_normal((rows, DRAWS), dtype=np.float32)
    drawn.setflags(write=False)
    return drawn


@cache
def expected_maxima() -> Floats:
    """Expected maximum of each of `COUNTS` independent standard normal variables, shape (len(COUNTS),)."""
    points = np.linspace(-9.0, 9.0, 3601)
    below = np.array([NORMAL.cdf(point) for point in points])
    # the integral of the distribution function of the maximum, by parts: no density is needed
    sign = points >= 0.0
    step = points[1] - points[0]
    powers = below[None, :] ** COUNTS[:, None]
    return np.asarray(step * (np.where(sign, 1.0, 0.0) - powers).sum(axis=1) - step / 2.0)


def bars_to_pass(record: TrackRecord, trials: TrialCount, confidence: float) -> float:
    """Total number of bars at which the deflated Sharpe ratio reaches `confidence`, at an unchanged rate.

    The minimum track record length (Bailey & Lopez de Prado 2012) with the trial luck as the benchmark, which
    falls as the record grows. The bars to come are forward bars: a retrain adds them to the record.

    Returns:
        Bars, the present bars included; inf if never, NaN for a record without a Sharpe ratio.
    """
    if not record.measured or not math.isfinite(trials.effective):
        return math.nan

    def passes(bars: int) -> bool:
        longer = replace(record, bars=bars, effective_bars=record.effective_bars / record.bars * bars)
        then = trials.after(longer.effective_bars - record.effective_bars)
        luck = then.expected_maximum(longer.effective_bars)
        return probabilistic_sharpe_ratio(longer, luck) >= confidence

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
