"""Examination of an own feature on bars: repeatability, look-ahead, memory and warm-up.

1.  Repetition: the same bars give the same values, also after the function was called with other bars. A
    function that counts its calls or keeps state would otherwise look like a function that sees the future.
2.  Look-ahead: after any change of the bars after a row, and for series cut at each of many rows, the values
    up to the row stay bitwise equal. Consecutive rows find leaks that show at some bars only, such as values
    of a longer timeframe merged before the bar of the longer timeframe has closed.
3.  Memory: `memory` bars before a bar give the value of the whole history. If they do not, the number that
    does is measured.
4.  Warm-up: a fresh series gives a value after `warm_up` bars.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.errors import FeatureFailed, LookAhead, NotEnoughBars
from clm_core.market.bars import Bars, Floats
from clm_core.market.look_ahead import other_futures
from clm_core.market.own_features import OwnFeature

NEWEST = 1_500
"""Bars examined, besides those for the memory of the feature."""
FUTURES_ROWS = 8
"""Rows after which the bars are changed in every way."""
CONSECUTIVE_ROWS = 170
"""Neighbouring rows at which the series is cut: a week of hourly bars, for leaks at one bar of the week."""
MIN_BARS = 400
"""Least number of bars of a stretch beyond twice the memory: half of them have the consecutive rows."""
SCATTERED_ROWS = 40
"""Further rows at which the series is cut, and rows at which the memory is tried."""
FORGOTTEN = 1e-6
"""Largest difference between values of two histories, in standard deviations of the feature, that counts as
forgotten; the pieces of `own_features` make the difference exactly 0."""
ROUNDING = 1e-9
"""Difference, in standard deviations, up to which a change with the future comes from rounding."""


@dataclass(frozen=True)
class ExaminedFeature:
    """Measurements of an own feature without a fault."""

    name: str
    source: str
    warm_up: int
    memory: int
    bars_needed: int
    """Last bars that give the value of the whole history, to the last bit."""
    first_value: int
    """Bars before the first finite value, measured."""


def examine(feature: OwnFeature, bars: Bars, rng: np.random.Generator) -> ExaminedFeature:
    """Examine a feature on the longest unbroken stretch of the newest bars.

    Args:
        bars: real bars, longer than the memory of the feature.
        rng: generator of the rows.

    Raises:
        LookAhead: a value changes with later bars.
        FeatureFailed: the function raises, gives no number, remembers more than declared, or gives two
            answers to the same bars.
        NotEnoughBars: the bars are too few for the memory of the feature.
    """
    newest = _stretch(feature, bars)
    values = feature.raw(newest)
    _require_repeatable(feature, newest, values)
    _require_no_look_ahead(feature, newest, values, rng)
    first_value = _require_warm_up(feature, newest, values)
    _require_memory(feature, newest, values, rng)
    return ExaminedFeature(
        name=feature.name,
        source=feature.origin.source,
        warm_up=feature.warm_up,
        memory=feature.declared.memory,
        bars_needed=feature.memory + 1,
        first_value=first_value,
    )


def _stretch(feature: OwnFeature, bars: Bars) -> Bars:
    memory = feature.declared.memory
    stretches = [bars[rows] for rows in bars.stretches()]
    longest = max(stretches, key=len, default=bars)
    if len(longest) < 2 * memory + MIN_BARS:
        raise NotEnoughBars(
            f"{feature.origin} remembers {memory} bars, and the longest unbroken stretch has "
            f"{len(longest)}: give "
            f"at least {2 * memory + MIN_BARS} bars without an outage"
        )
    return longest[-(2 * memory + NEWEST) :]


def _require_repeatable(feature: OwnFeature, bars: Bars, values: Floats) -> None:
    feature.raw(bars[: len(bars) // 2])
    again = feature.raw(bars)
    if not _same(values, again).all():
        row = int(np.argmin(_same(values, again)))
        raise FeatureFailed(
            f"{feature.origin} gives two answers to the same bars, first for the bar of {bars.index[row]}: "
            f"{values[row]!r} and {again[row]!r}. A value must follow from the bars alone: use no "
            "counter, cache, "
            "clock or unseeded random numbers"
        )


def _require_no_look_ahead(feature: OwnFeature, bars: Bars, values: Floats, rng: np.random.Generator) -> None:
    for row, change, compute in _experiments(feature, bars, rng):
        changed = compute()[: row + 1]
        before = values[: row + 1]
        different = ~_same(before, changed)
        if different.any():
            raise LookAhead(str(feature.origin), _seen(bars, row, change, before, changed, different))


def _experiments(
    feature: OwnFeature, bars: Bars, rng: np.random.Generator
) -> Iterator[tuple[int, str, Callable[[], Floats]]]:
    """Row, change of the bars after the row, and the values with the change."""
    first = len(bars) // 2
    for row in sorted(rng.integers(first, len(bars) - 1, FUTURES_ROWS).tolist()):
        for change, changed in other_futures(bars, row):
            yield row, change, partial(feature.raw, changed)
    begin = int(rng.integers(first, len(bars) - 1 - CONSECUTIVE_ROWS))
    neighbours = range(begin, begin + CONSECUTIVE_ROWS)
    for row in [*neighbours, *rng.integers(first, len(bars) - 1, SCATTERED_ROWS).tolist()]:
        yield row, "cut off", partial(feature.raw, bars[: row + 1])


def _seen(
    bars: Bars, row: int, change: str, before: Floats, changed: Floats, different: NDArray[np.bool_]
) -> str:
    at = int(np.argmax(different))
    seen = (
        f"the value of the bar of {bars.index[at]} changes when the bars after {bars.index[row]} are {change}"
    )
    scale = float(np.nanstd(before)) or 1.0
    gaps = np.abs(before - changed)[different]
    if np.isfinite(gaps).all() and gaps.max() <= ROUNDING * scale:
        return (
            f"{seen}, by {gaps.max():.1g}: the function computes all bars together, as an FFT does, "
            "so that later "
            "bars change the rounding; compute each bar from earlier bars alone"
        )
    return seen


def _require_warm_up(feature: OwnFeature, bars: Bars, values: Floats) -> int:
    """Bars before the first value from which on every value is finite, measured."""
    wrong = np.flatnonzero(np.isinf(values) if feature.series else ~np.isfinite(values))
    first = int(wrong[-1]) + 1 if len(wrong) else 0
    if feature.series:
        # unknown values of the series come in between
        first = max(first, int(np.argmax(np.isfinite(values))))
    if first > feature.warm_up:
        row = int(wrong[wrong >= feature.warm_up][0])
        what = "no value" if np.isnan(values[row]) else "an infinite value"
        is_prefix = len(wrong) == first
        advice = (
            f"declare warm_up={first}"
            if is_prefix
            else "return a neutral value where the formula divides by zero"
        )
        raise FeatureFailed(
            f"{feature.origin} gives {what} for bar {row} of a series, that of {bars.index[row]}, and "
            "declares "
            f"warm_up={feature.warm_up}: {advice}"
        )
    return first


def _require_memory(feature: OwnFeature, bars: Bars, values: Floats, rng: np.random.Generator) -> None:
    declared = feature.declared.memory
    rows = np.unique(rng.integers(len(bars) // 2, len(bars), SCATTERED_ROWS))
    allowed = FORGOTTEN * (float(np.nanstd(values[feature.warm_up :])) or 1.0)

    def suffices(memory: int) -> bool:
        return all(_last(feature, bars, row, memory, values[row]) <= allowed for row in rows.tolist())

    if suffices(declared):
        return
    measured = _least(suffices, declared, int(rows[0]))
    if measured is None:
        advice = (
            f"no number of bars up to {int(rows[0])} does. A value may not depend on the start of the "
            "series, as a "
            "sum or a maximum since the first bar does"
        )
    else:
        advice = f"{measured} bars do: declare memory={measured}"
    raise FeatureFailed(
        f"{feature.origin} declares memory={declared}, but {declared} bars before a bar do not give "
        "the value of "
        f"the whole history; {advice}"
    )


def _last(feature: OwnFeature, bars: Bars, row: int, memory: int, expected: float) -> float:
    """Distance between the value of the last bars alone and the value of the whole history."""
    value = feature.raw(bars[max(0, row - memory) : row + 1])[-1]
    if np.isnan(value) or np.isnan(expected):
        return 0.0 if np.isnan(value) and np.isnan(expected) else np.inf
    return float(abs(value - expected))


def _least(suffices: Callable[[int], bool], too_few: int, max_memory: int) -> int | None:
    """Least memory that suffices, above `too_few`; None if `max_memory` does not."""
    enough = max(1, 2 * too_few)
    while not suffices(min(enough, max_memory)):
        if enough >= max_memory:
            return None
        too_few = enough
        enough *= 2
    enough = min(enough, max_memory)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if suffices(middle):
            enough = middle
        else:
            too_few = middle
    # a row whose history is barely longer proves nothing
    return None if enough >= max_memory - 1 else enough


def _same(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """True where values are bitwise equal or both missing."""
    bits = np.ascontiguousarray(one).view(np.int64) == np.ascontiguousarray(other).view(np.int64)
    return np.asarray(bits | (np.isnan(one) & np.isnan(other)))
