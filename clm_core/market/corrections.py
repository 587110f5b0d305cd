"""Differences between stored bars and the bars of a source, with the usual causes by name.

An exchange corrects its newest bars: late trades raise a volume, a cancelled trade changes a low. A vendor
restates a whole history: each dividend multiplies all earlier prices by one factor, each split multiplies
earlier volumes by the inverse as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clm_core.market.bars import FIELDS, Bars, Floats

NOISE = 1e-7
"""Largest relative difference of equal values: adjusted downloads differ in the digits beyond float32 from
one call to the next."""
PRICE_TOLERANCE = 0.01
"""Largest relative change of a price that a fetch takes as a correction; a larger change needs a person."""
VOLUME_TOLERANCE = 100.0
"""Largest factor between two volumes that a fetch takes as a correction; a larger factor is another unit."""
RECHECKED_BARS = 3
"""Number of the newest stored bars that a fetch reads again and corrects."""
LISTED_CHANGES = 20
"""Largest number of changed values listed with a snapshot; counts cover all of them."""

_PRICES = slice(0, 4)
_SLACK = 1e-6
"""Relative error of a factor beyond the rounding of the prices: vendors multiply in float32."""
_MAX_PIECES = 12
"""Largest number of factors in one re-adjustment: one for each dividend or split since the first download."""
_MIN_BARS_PER_PIECE = 5
_MIN_SPLIT = 1.3
"""Smallest factor named a split; a stock dividend below changes prices as a cash dividend does."""

Times = NDArray[np.int64]
Mask = NDArray[np.bool_]


class ValueChange(BaseModel):
    """One value of a bar, before and after."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: datetime
    """Open time of the bar."""
    field: str
    """open, high, low, close or volume."""
    old: float
    new: float

    def __str__(self) -> str:
        return f"{self.time:%Y-%m-%d %H:%M} {self.field} {self.old:.10g} -> {self.new:.10g}"


class Revision(BaseModel):
    """Difference of a snapshot from the snapshot before, other than bars appended or put in front."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    changed: int
    """Number of bars with other values."""
    added: int
    """Number of bars added between bars stored before."""
    removed: int
    """Number of bars no longer in the series."""
    first: datetime
    """Open time of the first bar changed, added or removed."""
    last: datetime
    """Open time of the last bar changed, added or removed."""
    values: tuple[ValueChange, ...]
    """Changed values in time order, at most the first `LISTED_CHANGES`."""
    largest_price_change: float
    """Largest relative change of a price, 0.01 for 1 %."""
    cause: str
    """Recognised cause in words; empty if none was recognised."""
    reason: str = ""
    """Reason given by the person who replaced the bars."""
    actor: str = ""
    """Person who replaced the bars; empty for a correction taken by a fetch or import."""

    @classmethod
    def without_changes(cls, bars: Bars, reason: str, actor: str) -> "Revision":
        """Revision that leaves all values, such as a change of the calendar."""
        return cls(
            changed=0,
            added=0,
            removed=0,
            first=bars.start.to_pydatetime(),
            last=bars.end.to_pydatetime(),
            values=(),
            largest_price_change=0.0,
            cause="",
            reason=reason,
            actor=actor,
        )

    @property
    def bars(self) -> int:
        """Number of bars changed, added or removed."""
        return self.changed + self.added + self.removed

    def __str__(self) -> str:
        counted = [
            f"{count:,} {word}"
            for count, word in (
                (self.changed, "corrected"),
                (self.added, "added"),
                (self.removed, "removed"),
            )
            if count
        ]
        values = "; ".join([*(str(value) for value in self.values[:3]), *["..."][: len(self.values) > 3]])
        what = ", ".join(part for part in (self.cause, values) if part)
        return f"{', '.join(counted) or 'no bar changed'}: {what or f'{self.first:%Y-%m-%d %H:%M}'}"


@dataclass(frozen=True, eq=False)
class BarComparison:
    """Stored bars beside the bars offered by a source for the same span."""

    common: Times
    """Open times in both, nanoseconds since 1970-01-01 UTC, shape (n_common,)."""
    old: Floats
    """Stored values of the common bars, shape (n_common, 5)."""
    new: Floats
    """Offered values of the common bars, shape (n_common, 5)."""
    differs: Mask
    """True for the common bars with other values, shape (n_common,)."""
    added: Times
    """Open times of the bars offered only."""
    removed: Times
    """Open times of the bars stored only."""
    cause: str
    """Recognised cause of the differing values in words, or empty."""
    rescaled: bool
    """True if the cause is one factor over many bars: a dividend, a split or another unit."""

    def __bool__(self) -> bool:
        """True if any bar differs."""
        return bool(self.differs.any() or len(self.added) or len(self.removed))

    @property
    def changed(self) -> int:
        return int(np.count_nonzero(self.differs))

    @property
    def price_changes(self) -> Floats:
        """Largest relative change of the prices of each common bar, shape (n_common,)."""
        return price_changes(self.old, self.new)

    def values(self) -> Iterator[ValueChange]:
        """Changed values in time order."""
        rows = np.flatnonzero(self.differs)
        for row, column in zip(*np.nonzero(_unequal(self.old[rows], self.new[rows])), strict=True):
            yield ValueChange(
                time=moment(self.common[rows[row]]),
                field=FIELDS[column],
                old=self.old[rows[row], column],
                new=self.new[rows[row], column],
            )

    def revision(self, reason: str = "", actor: str = "") -> Revision | None:
        """Record for the manifest; None if nothing differs."""
        times = np.concatenate([self.common[self.differs], self.added, self.removed])
        if not len(times):
            return None
        return Revision(
            changed=self.changed,
            added=len(self.added),
            removed=len(self.removed),
            first=moment(times.min()),
            last=moment(times.max()),
            values=tuple(value for value, _ in zip(self.values(), range(LISTED_CHANGES), strict=False)),
            largest_price_change=float(self.price_changes.max(initial=0.0)),
            cause=self.cause,
            reason=reason,
            actor=actor,
        )


def moment(nanoseconds: int) -> datetime:
    return pd.Timestamp(int(nanoseconds), unit="ns", tz="UTC").to_pydatetime()


def table(bars: Bars) -> Floats:
    """Values of the bars in the order of `FIELDS`, shape (n_bars, 5)."""
    return np.column_stack([getattr(bars, field) for field in FIELDS])


def compare(stored: Bars, offered: Bars) -> BarComparison:
    """Compare two series of one span; values closer than `NOISE` are equal."""
    common, there, here = np.intersect1d(stored.time, offered.time, assume_unique=True, return_indices=True)
    old = table(stored)[there]
    new = table(offered)[here]
    differs = np.asarray(_unequal(old, new).any(axis=1))
    later = offered.time[offered.time > common[-1]] if len(common) else offered.time
    cause, rescaled = _cause(common, old, new, differs, later)
    return BarComparison(
        common=common,
        old=old,
        new=new,
        differs=differs,
        added=np.setdiff1d(offered.time, common, assume_unique=True),
        removed=np.setdiff1d(stored.time, common, assume_unique=True),
        cause=cause,
        rescaled=rescaled,
    )


def correctable(comparison: BarComparison) -> Mask:
    """True for the common bars whose change is small enough for a correction, shape (n_common,).

    A history multiplied by one factor is none: the bars before the newest would keep the old scale.
    """
    old = comparison.old[:, 4]
    new = comparison.new[:, 4]
    # a bar without a trade may turn out to have some; the trades of a bar do not vanish
    volume = (old == 0.0) | ((new <= old * VOLUME_TOLERANCE) & (new >= old / VOLUME_TOLERANCE))
    return np.asarray((comparison.price_changes <= PRICE_TOLERANCE) & volume & (not comparison.rescaled))


def price_changes(old: Floats, new: Floats) -> Floats:
    """Largest relative change of the four prices of each bar, shape (n_bars,)."""
    return np.asarray(np.max(np.abs(new[:, _PRICES] / old[:, _PRICES] - 1.0), axis=1, initial=0.0))


def _unequal(old: Floats, new: Floats) -> Mask:
    return np.asarray(~(np.abs(new - old) <= NOISE * np.abs(old)))


@dataclass(frozen=True)
class _Piece:
    """Bars whose prices are multiplied by one factor."""

    first: int
    until: int
    factor: float


def _cause(common: Times, old: Floats, new: Floats, differs: Mask, later: Times) -> tuple[str, bool]:
    """Recognised cause in words, and True if the cause is a factor over many bars."""
    rows = np.flatnonzero(differs)
    if not len(rows):
        return "", False
    prices = _unequal(old[:, _PRICES], new[:, _PRICES]).any(axis=1)
    if not prices.any():
        ratio = _constant_ratio(old[rows, 4], new[rows, 4])
        if ratio is not None and len(rows) >= _MIN_BARS_PER_PIECE:
            return f"volumes are multiplied by {_number(ratio)} (another unit)", True
        return "only the volume differs" if len(rows) == 1 else "only volumes differ", False
    pieces = _pieces(old[:, _PRICES], new[:, _PRICES])
    if pieces is not None:
        ends = np.append(common, later[:1])
        words = [_rescaling(piece, old, new, ends) for piece in pieces if piece.factor != 1.0]
        more = f"; and {len(words) - 3} more" if len(words) > 3 else ""
        other = np.count_nonzero(~_has_factor(*_factors(old[:, _PRICES], new[:, _PRICES])))
        exceptions = f"; {other} more bars differ otherwise" if other else ""
        return "; ".join(words[:3]) + more + exceptions, True
    if len(rows) == 1 and rows[0] == len(common) - 1 and _grown(old[rows[0]], new[rows[0]]):
        return "the bar was probably stored while it was still open", False
    return "", False


def _pieces(old: Floats, new: Floats) -> list[_Piece] | None:
    """Stretches of bars whose prices are all multiplied by one factor, or None if there is no such rule.

    The factor of a bar is known up to the rounding of both prices; a stretch ends where no factor fits all
    bars of the stretch.
    """
    low, high = _factors(old, new)
    rows = np.flatnonzero(_has_factor(low, high))
    if len(rows) < 2 or len(old) - len(rows) > max(1, len(old) // 50):
        return None
    pieces = list[_Piece]()
    first = 0
    while first < len(rows):
        lower = np.maximum.accumulate(low[rows[first:]])
        upper = np.minimum.accumulate(high[rows[first:]])
        fits = int(np.argmax(lower > upper)) if (lower > upper).any() else len(lower)
        if len(pieces) == _MAX_PIECES:
            return None
        lowest = lower[fits - 1]
        highest = upper[fits - 1]
        factor = 1.0 if lowest <= 1.0 <= highest else float((lowest + highest) / 2)
        first += fits
        until = rows[first] if first < len(rows) else len(old)
        pieces.append(_Piece(pieces[-1].until if pieces else 0, int(until), factor))
    changed = sum(piece.until - piece.first for piece in pieces if piece.factor != 1.0)
    if changed < 2 or (len(pieces) > 2 and len(rows) < _MIN_BARS_PER_PIECE * len(pieces)):
        return None
    return pieces


def _factors(old: Floats, new: Floats) -> tuple[Floats, Floats]:
    """Smallest and largest factor between the rounded prices of each bar, shape (n_bars,) each."""
    old_step = _rounding(old) / 2
    new_step = _rounding(new) / 2
    low = ((new - new_step) / (old + old_step)).max(axis=1) * (1 - _SLACK)
    high = ((new + new_step) / np.maximum(old - old_step, np.finfo(float).tiny)).min(axis=1) * (1 + _SLACK)
    return low, high


def _has_factor(low: Floats, high: Floats) -> Mask:
    """True for bars whose four prices have a common factor, shape (n_bars,)."""
    return np.asarray(low <= high)


def _rounding(values: Floats) -> float:
    """Step of the last digit of the values, or 0.0 for values with more than ten decimals."""
    for decimals in range(11):
        if (np.abs(values - np.round(values, decimals)) <= 1e-12 * np.abs(values)).all():
            return float(10.0**-decimals)
    return 0.0


def _rescaling(piece: _Piece, old: Floats, new: Floats, ends: Times) -> str:
    """A piece in words.

    Args:
        ends: open times of the common bars and of the first later bar, if any.
    """
    span = f"before {_day(ends[piece.until])}" if piece.until < len(ends) else f"up to {_day(ends[-1])}"
    if piece.first:
        span = f"from {_day(ends[piece.first])} on, {span},"
    rows = slice(piece.first, piece.until)
    inverse = _constant_ratio(old[rows, 4], new[rows, 4])
    scaled = inverse is not None and abs(inverse * piece.factor - 1) < 0.02
    split = _split(piece.factor)
    if split is None:
        return (
            f"re-adjusted: prices {span} are multiplied by {_number(piece.factor)} "
            "(a dividend or an adjusted download)"
        )
    volumes = f"volumes by {_number(inverse)}" if scaled and inverse is not None else "volumes are not"
    when = f" on {_day(ends[piece.until])}" if piece.until < len(ends) else ""
    return f"split {split}{when}: prices {span} are multiplied by {_number(piece.factor)}, {volumes}"


def _split(factor: float) -> str | None:
    """Ratio of a split that multiplies earlier prices by the factor: 10:1 for 0.1, 1:8 for 8."""
    if 1 / _MIN_SPLIT < factor < _MIN_SPLIT:
        return None
    ratio = Fraction(1 / factor).limit_denominator(10)
    if factor > 1:
        inverse = Fraction(factor).limit_denominator(10)
        ratio = 1 / inverse
    if ratio == 0 or abs(float(ratio) * factor - 1) > 1e-3:
        return None
    return f"{ratio.numerator}:{ratio.denominator}"


def _constant_ratio(old: Floats, new: Floats) -> float | None:
    """Ratio of the volumes, or None if less than nine in ten bars have it within 2 %."""
    traded = (old > 0) & (new > 0)
    if not traded.any():
        return None
    ratios = new[traded] / old[traded]
    median = float(np.median(ratios))
    return median if np.mean(np.abs(ratios / median - 1) < 0.02) >= 0.9 else None


def _grown(old: Floats, new: Floats) -> bool:
    """True if a bar has the open of the stored bar, at least its range and more volume."""
    return bool(old[0] == new[0] and new[1] >= old[1] and new[2] <= old[2] and new[4] > old[4])


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if 0.01 <= value < 100 else f"{value:.5g}"


def _day(nanoseconds: int) -> str:
    when = moment(nanoseconds)
    midnight = when.hour == when.minute == 0
    return f"{when:%Y-%m-%d}" if midnight else f"{when:%Y-%m-%d %H:%M}"
