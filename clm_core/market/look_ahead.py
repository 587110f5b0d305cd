"""Proof by experiment that values use no later bars: change what comes after, nothing before may move."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import FIELDS, Bars, Floats


def first_leak(compute: Callable[[Bars], Floats], bars: Bars, rows: Sequence[int]) -> str | None:
    """What shows that values use later bars, or None when every value up to `rows` stays bitwise the same.

    Args:
        compute: what is under suspicion; answers one row a bar, shape (n_bars,) or (n_bars, n_columns).
        bars: a series with at least one bar after each of `rows`.
        rows: where the future is changed, each at the price of five computations.
    """
    if not rows:
        raise ValueError("name at least one row: without one, nothing would be examined")
    values = compute(bars)
    for row in rows:
        for change, changed in other_futures(bars, row):
            moved = _first_difference(values[: row + 1], compute(changed)[: row + 1])
            if moved is not None:
                return f"value {moved} changes when the bars after row {row} are {change}"
    return None


def other_futures(bars: Bars, row: int) -> Iterator[tuple[str, Bars]]:
    """The same bars up to `row`, with other valid bars, or none, after it; each with what was done."""
    if not 0 <= row < len(bars) - 1:
        raise ValueError(f"row {row} of {len(bars)} bars has no future to change: choose an earlier one")
    yield "cut off", bars[: row + 1]
    yield "multiplied", _rewrite(bars, row, lambda name, values: values * (7 if name == "volume" else 3))
    yield "flattened", _rewrite(bars, row, lambda name, values: np.full_like(values, name != "volume"))
    yield "reversed", _rewrite(bars, row, lambda _, values: values[::-1])
    late = np.where(np.arange(len(bars)) > row, bars.timeframe.nanoseconds, 0)
    yield "delayed", replace(bars, time=bars.time + late)


def _rewrite(bars: Bars, row: int, change: Callable[[str, Floats], Floats]) -> Bars:
    def rewritten(name: str) -> Floats:
        values: Floats = getattr(bars, name)
        return np.concatenate([values[: row + 1], change(name, values[row + 1 :])])

    return Bars(bars.symbol, bars.timeframe, bars.calendar, bars.time, **{n: rewritten(n) for n in FIELDS})


def _first_difference(before: Floats, after: Floats) -> tuple[int, ...] | None:
    if before.shape != after.shape:
        return after.shape
    same = (_bits(before) == _bits(after)) | (np.isnan(before) & np.isnan(after))
    different = np.argwhere(~same)
    return tuple(different[0].tolist()) if len(different) else None


def _bits(values: Floats) -> NDArray[np.int64]:
    return np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
