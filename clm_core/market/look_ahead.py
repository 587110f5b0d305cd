"""Look-ahead test: after any change of later bars, values up to a row must stay bitwise equal."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import FIELDS, Bars, Floats


def first_leak(
    compute: Callable[[Bars], Floats], bars: Bars, rows: Sequence[int], *others: Callable[[Bars], Floats]
) -> str | None:
    """Description of the first value that uses later bars, or None if all values up to `rows` stay bitwise
    equal.

    Args:
        compute: function under test; one row for each bar, shape (n_bars,) or (n_bars, n_columns).
        bars: a series with at least one bar after each of `rows`.
        rows: last rows before a changed future; each row costs five computations.
        others: functions under test on the same changed bars.

    Raises:
        ValueError: there is no row, or a row without a later bar.
    """
    if not rows:
        raise ValueError("the look-ahead test needs at least one row")
    computes = (compute, *others)
    values = [each(bars) for each in computes]
    for row in rows:
        for change, changed in other_futures(bars, row):
            answers = [each(changed) for each in computes]
            for before, after in zip(values, answers, strict=True):
                moved = _first_difference(before[: row + 1], after[: row + 1])
                if moved is not None:
                    return f"value {moved} changes when the bars after row {row} are {change}"
    return None


def other_futures(bars: Bars, row: int) -> Iterator[tuple[str, Bars]]:
    """Pairs of a change and the changed bars: the same bars up to `row`, other valid bars or no bars
    later."""
    if not 0 <= row < len(bars) - 1:
        raise ValueError(f"row {row} of {len(bars)} bars has no future to change: choose an earlier one")
    yield "cut off", bars[: row + 1]
    yield "multiplied", _rewrite(bars, row, lambda name, values: values * (7 if name == "volume" else 3))
    yield "flattened", _rewrite(bars, row, lambda name, values: np.full_like(values, name != "volume"))
    yield "reversed", _rewrite(bars, row, lambda _, values: values[::-1])
    delay = np.where(np.arange(len(bars)) > row, bars.timeframe.nanoseconds, 0)
    yield "delayed", replace(bars, time=bars.time + delay)


def _rewrite(bars: Bars, row: int, change: Callable[[str, Floats], Floats]) -> Bars:
    def rewritten(name: str) -> Floats:
        values: Floats = getattr(bars, name)
        return np.concatenate([values[: row + 1], change(name, values[row + 1 :])])

    columns: dict[str, Any] = {name: rewritten(name) for name in FIELDS}
    series = {
        name: np.concatenate([values[: row + 1], change(name, values[row + 1 :])])
        for name, values in bars.series.items()
    }
    return replace(bars, **columns, series=series)


def _first_difference(before: Floats, after: Floats) -> tuple[int, ...] | None:
    if before.shape != after.shape:
        return after.shape
    if np.array_equal(_bits(before), _bits(after)):
        return None
    same = (_bits(before) == _bits(after)) | (np.isnan(before) & np.isnan(after))
    different = np.argwhere(~same)
    return tuple(different[0].tolist()) if len(different) else None


def _bits(values: Floats) -> NDArray[np.int64]:
    return np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
