"""Champion against challenger on the same bars: looked at after every bar, yet right as often as stated.

What is judged is the mean difference, challenger's return minus champion's, a bar or a trade at a time. Two
bounds hold it: the lower one stays below the true mean for ever with probability 1 - alpha, and so does the
upper one above it. One may look after every difference and stop at will: a challenger that is no better has a
chance of at most alpha of ever being called better. The first decision counts; looking on after it is idle.

The bounds are the one-sided asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas
(2024), "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52(6),
with two things added. The variance is the long-run one that a first-order autoregression implies; and it
grows, as in the probabilistic Sharpe ratio, where mean and skewness have opposite signs: many small gains
look best before the rare large loss. Asymptotic means that the first `FEWEST` differences may not decide;
docs/decisions/0001-evidence.md shows how often it errs after them.

Returns count as they are: to compare skill and not size, give both at the same volatility.

A `PairedRecord` is the whole state. Update it with every difference; it survives a restart as JSON:
`PairedRecord(**json.loads(json.dumps(asdict(record))))`.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from clm_core.market.bars import Floats

FEWEST = 50
"""Differences before the first look: variance and skewness from fewer are too uncertain."""
LARGEST_AUTOREGRESSION = 0.9
"""Of the differences; negative ones count as 0, so that bounce between two bars earns no credit."""
FOR_EVER = 2**40
"""Differences that nobody will see."""


class Standing(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class PairedRecord:
    """The differences so far; sums are of each less the first one, so that a constant sums to exactly 0."""

    n: int = 0
    first: float = 0.0
    """Challenger's return minus champion's on the first bar or trade, a fraction."""
    last: float = 0.0
    """The same on the last one, less the first."""
    total: float = 0.0
    squares: float = 0.0
    cubes: float = 0.0
    products: float = 0.0
    """Of neighbours."""


@dataclass(frozen=True)
class Bounds:
    """Of the mean difference, as fractions; each alone holds for ever with probability 1 - alpha."""

    low: float
    mean: float
    """So far; NaN, like both bounds, where nothing can be said yet."""
    high: float


NOTHING = Bounds(math.nan, math.nan, math.nan)


def update(record: PairedRecord, challenger: float, champion: float) -> PairedRecord:
    """The record with one more bar or trade; returns of both on it, after the same costs, as fractions."""
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
    """The record with many more, in time order, shape (n,) each."""
    if challenger.shape != champion.shape:
        raise ValueError(
            f"challenger has {len(challenger)} returns, champion {len(champion)}: judge both on the same bars"
        )
    for ours, theirs in zip(challenger.tolist(), champion.tolist(), strict=True):
        record = update(record, ours, theirs)
    return record


def bounds(record: PairedRecord, alpha: float, tuned_for: int) -> Bounds:
    """Where the mean difference lies; NaN for fewer than `FEWEST` differences or where they never vary.

    Args:
        record: of all differences so far.
        alpha: chance of each bound to be wrong ever, 0..0.5 exclusive.
        tuned_for: differences after which a decision is expected: the bounds are as tight as can be there,
            valid everywhere.
    """
    moments = _moments(record)
    if moments is None:
        return NOTHING
    mean, deviation = moments
    radius = deviation * _radius(record.n, alpha, tuned_for)
    return Bounds(mean - radius, mean, mean + radius)


def stand(record: PairedRecord, alpha: float, tuned_for: int) -> Standing:
    """Whether the challenger earns more, or less, than the champion, or it cannot be told yet."""
    now = bounds(record, alpha, tuned_for)
    if now.low > 0.0:
        return Standing.BETTER
    return Standing.WORSE if now.high < 0.0 else Standing.UNDECIDED


def differences_to_decide(record: PairedRecord, alpha: float, tuned_for: int) -> float:
    """Differences, those so far included, that decide if they go on as they did; inf if they never will.

    NaN where nothing can be said yet.
    """
    moments = _moments(record)
    if moments is None:
        return math.nan
    mean, deviation = moments
    few, many = record.n - 1, FOR_EVER
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
    """Mean of the differences, and the root of n times the variance of that mean; None if not known yet."""
    n = record.n
    if n < FEWEST or record.squares == 0.0:
        return None
    mean = record.total / n
    variance = record.squares / n - mean * mean
    third = record.cubes / n - 3.0 * mean * record.squares / n + 2.0 * mean * mean * mean
    # the first difference, less itself, is 0
    neighbours = record.products - mean * (2.0 * record.total - record.last) + (n - 1) * mean * mean
    slope = min(max(neighbours / n / variance, 0.0), LARGEST_AUTOREGRESSION)
    tail = max(1.0 - third / variance * (record.first + mean) / variance, 1.0)
    spread = variance * n / (n - 1) * (1.0 + slope) / (1.0 - slope) * tail
    return (record.first + mean, math.sqrt(spread)) if 0.0 < spread < math.inf else None


def _radius(n: int, alpha: float, tuned_for: int) -> float:
    """Half the width for a long-run variance of 1 (Waudby-Smith et al. 2024, one-sided, in the appendix).

    sqrt(2 (n r + 1) / (n ** 2 r) log(1 + sqrt(n r + 1) / (2 alpha))), with r least wide at `tuned_for`.
    """
    if not 0.0 < alpha < 0.5 or tuned_for < 1:
        raise ValueError(f"alpha {alpha} must lie between 0 and 0.5, and tuned_for {tuned_for} be at least 1")
    level = -2.0 * math.log(2.0 * alpha)
    mixture = n * (level + math.log(level + 1.0)) / tuned_for
    return math.sqrt(
        2.0 * (mixture + 1.0) / (n * mixture) * math.log1p(math.sqrt(mixture + 1.0) / (2.0 * alpha))
    )
