"""Anytime-valid comparison of champion and challenger on the same bars.

The subject of the test is the mean difference, challenger's return minus champion's, of a bar or a trade. The
lower bound stays below the true mean for ever with probability 1 - alpha, and the upper bound above the true
mean likewise. Looking after every difference and stopping at will is therefore allowed: a challenger that is
no better than the champion is ever called better with probability alpha at most. The first decision counts.

The bounds are the one-sided asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas
(2024), "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52(6),
with two changes: the variance is the long-run variance of a first-order autoregression, and, as in the
probabilistic Sharpe ratio, the variance grows where mean and skewness have opposite signs, since many small
gains look best before the rare large loss. Because the sequence is asymptotic, the first `MIN_DIFFERENCES`
differences do not decide; docs/decisions/0001-evidence.md has the error rates afterwards.

Returns are not scaled: for a comparison of skill and not of size, pass returns of equal volatility.

A `PairedRecord` is the whole state, updated with every difference and restored from JSON by
`PairedRecord(**json.loads(json.dumps(asdict(record))))`.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from clm_core.market.bars import Floats

MIN_DIFFERENCES = 50
"""Minimum number of differences: variance and skewness of fewer are too uncertain."""
MAX_AUTOREGRESSION = 0.9
"""Upper bound of the autocorrelation of the differences; a negative autocorrelation counts as 0, so that a
bounce between two bars does not narrow the bounds."""
MAX_DIFFERENCES = 2**40
"""Upper limit of the search for the number of differences that decide."""


class Standing(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class PairedRecord:
    """Sums over the differences so far, each less the first, so that a constant sums to exactly 0."""

    n: int = 0
    first: float = 0.0
    """Challenger's return minus champion's on the first bar or trade, a fraction."""
    last: float = 0.0
    """Last difference, less the first."""
    total: float = 0.0
    squares: float = 0.0
    cubes: float = 0.0
    products: float = 0.0
    """Sum of the products of neighbouring differences."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of the mean difference, as fractions; each bound holds for ever with probability 1 - alpha."""

    low: float
    mean: float
    """Mean difference so far; NaN, like both bounds, for too few or constant differences."""
    high: float


UNKNOWN = Bounds(math.nan, math.nan, math.nan)


def update(record: PairedRecord, challenger: float, champion: float) -> PairedRecord:
    """The record with one more bar or trade.

    Args:
        challenger: return after costs, a fraction.
        champion: return on the same bar or trade after the same costs, a fraction.

    Raises:
        ValueError: a return is not finite.
    """
    difference = challenger - champion
    if not math.isfinite(difference):
        raise ValueError(
            f"returns {challenger} and {champion} do not compare: leave out what was not measured for both"
        )
    first = record.first if record.n else difference
    step = difference - first
    return PairedRecord(
        n=record.n + 1,
        first=first,
        last=step,
        total=record.total + step,
        squares=record.squares + step * step,
        cubes=record.cubes + step * step * step,
        products=record.products + step * record.last,
    )


def extend(record: PairedRecord, challenger: Floats, champion: Floats) -> PairedRecord:
    """The record with the returns of further bars or trades, in time order, shape (n,) each."""
    if challenger.shape != champion.shape:
        raise ValueError(
            f"challenger has {len(challenger)} returns, champion {len(champion)}: judge both on the same bars"
        )
    for ours, theirs in zip(challenger.tolist(), champion.tolist(), strict=True):
        record = update(record, ours, theirs)
    return record


def bounds(record: PairedRecord, alpha: float, tuned_for: int) -> Bounds:
    """Bounds of the mean difference; NaN for fewer than `MIN_DIFFERENCES` or constant differences.

    Args:
        record: record of all differences so far.
        alpha: probability of each bound ever being wrong, 0..0.5 exclusive.
        tuned_for: number of differences at which the bounds are tightest, such as the expected number at a
            decision; the bounds are valid at any number.
    """
    moments = _moments(record)
    if moments is None:
        return UNKNOWN
    mean, deviation = moments
    radius = deviation * _radius(record.n, alpha, tuned_for)
    return Bounds(mean - radius, mean, mean + radius)


def stand(record: PairedRecord, alpha: float, tuned_for: int) -> Standing:
    """Standing of the challenger: BETTER or WORSE than the champion, or UNDECIDED so far."""
    now = bounds(record, alpha, tuned_for)
    if now.low > 0.0:
        return Standing.BETTER
    return Standing.WORSE if now.high < 0.0 else Standing.UNDECIDED


def differences_to_decide(record: PairedRecord, alpha: float, tuned_for: int) -> float:
    """Total number of differences at which a decision falls, if mean and variance stay; inf if never.

    NaN for fewer than `MIN_DIFFERENCES` or constant differences.
    """
    moments = _moments(record)
    if moments is None:
        return math.nan
    mean, deviation = moments
    few = record.n - 1
    many = MAX_DIFFERENCES
    if deviation * _radius(many, alpha, tuned_for) >= abs(mean):
        return math.inf
    while many - few > 1:
        middle = (few + many) // 2
        if deviation * _radius(middle, alpha, tuned_for) < abs(mean):
            many = middle
        else:
            few = middle
    return float(many)


def _moments(record: PairedRecord) -> tuple[float, float] | None:
    """Mean of the differences and the root of n times the variance of the mean; None if not measurable."""
    n = record.n
    if n < MIN_DIFFERENCES or record.squares == 0.0:
        return None
    mean = record.total / n
    variance = record.squares / n - mean * mean
    third = record.cubes / n - 3.0 * mean * record.squares / n + 2.0 * mean * mean * mean
    # the first entry of the sums, the first difference less the same value, is 0
    neighbours = record.products - mean * (2.0 * record.total - record.last) + (n - 1) * mean * mean
    slope = min(max(neighbours / n / variance, 0.0), MAX_AUTOREGRESSION)
    tail = max(1.0 - third / variance * (record.first + mean) / variance, 1.0)
    spread = variance * n / (n - 1) * (1.0 + slope) / (1.0 - slope) * tail
    return (record.first + mean, math.sqrt(spread)) if 0.0 < spread < math.inf else None


def _radius(n: int, alpha: float, tuned_for: int) -> float:
    """Half-width for a long-run variance of 1 (Waudby-Smith et al. 2024, appendix, one-sided).

    sqrt(2 (n r + 1) / (n ** 2 r) log(1 + sqrt(n r + 1) / (2 alpha))), with r minimising the width at
    `tuned_for`.
    """
    if not 0.0 < alpha < 0.5 or tuned_for < 1:
        raise ValueError(f"alpha {alpha} must lie between 0 and 0.5, and tuned_for {tuned_for} be at least 1")
    level = -2.0 * math.log(2.0 * alpha)
    mixture = n * (level + math.log(level + 1.0)) / tuned_for
    return math.sqrt(
        2.0 * (mixture + 1.0) / (n * mixture) * math.log1p(math.sqrt(mixture + 1.0) / (2.0 * alpha))
    )
