"""Corrections of an exchange taken or left to a person: the stored bars that differ from their source."""

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from clm_core.market.bars import FIELDS, Bars
from clm_core.market.corrections import (
    PRICE_TOLERANCE,
    VOLUME_TOLERANCE,
    Times,
    compare,
    correctable,
    moment,
    price_changes,
    table,
)


class WaitingBar(BaseModel):
    """A stored bar of which the source gives other values, too different to be taken without a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: datetime
    """Open time of the bar."""
    stored: tuple[float, ...]
    """Stored open, high, low, close and volume."""
    offered: tuple[float, ...] | None
    """Values of the source in the same order; None if the source no longer has the bar."""
    source: str
    seen_at: datetime
    kept: bool = False
    """True once a person has decided for the stored values; the offered values are then ignored."""
    cause: str = ""
    """Recognised cause in words, if any."""

    def __str__(self) -> str:
        when = f"{self.time:%Y-%m-%d %H:%M}"
        if self.offered is None:
            return f"{when} is missing at the source"
        pairs = zip(FIELDS, self.stored, self.offered, strict=True)
        values = ", ".join(f"{name} {old:.10g} -> {new:.10g}" for name, old, new in pairs if old != new)
        return f"{when} {values}"


def take_corrections(
    differing: tuple[WaitingBar, ...],
    stored: Bars,
    known: Bars,
    offered: Bars,
    source: str,
    now: datetime,
    rechecked: int,
) -> tuple[Bars, tuple[WaitingBar, ...]]:
    """Corrected bars to take, and all differing bars of the series afterwards.

    Args:
        differing: bars known to differ.
        known: stored bars when the exchange was asked.
    """
    comparison = compare(stored, offered)
    common = comparison.common
    mine = np.isin(common, _unchanged_since(stored, known))
    newest = common >= stored.time[-min(rechecked, len(stored))]
    differs = comparison.differs & mine
    take = differs & newest & correctable(comparison) & ~_known(differing, common, comparison.new)
    refused = differs & ~take
    # only a bar between two bars of the answer is gone; the answer may begin or end elsewhere
    gone = comparison.removed[
        (comparison.removed > offered.time[0])
        & (comparison.removed < offered.time[-1])
        & np.isin(comparison.removed, _unchanged_since(stored, known))
    ]
    settled = set(common[mine & ~refused].tolist())
    waiting = {time: bar for bar in differing if (time := pd.Timestamp(bar.time).value) not in settled}
    for row in np.flatnonzero(refused).tolist():
        values = comparison.old[row], comparison.new[row]
        cause = comparison.cause if comparison.rescaled else ""
        _remember(waiting, int(common[row]), *values, source, now, cause)
    for time in gone.tolist():
        _remember(waiting, time, table(stored)[np.searchsorted(stored.time, time)], None, source, now, "")
    rows = np.isin(offered.time, common[take])
    corrected = Bars(
        stored.symbol,
        stored.timeframe,
        stored.calendar,
        offered.time[rows],
        *(getattr(offered, field)[rows] for field in FIELDS),
    )
    return corrected, tuple(waiting[time] for time in sorted(waiting))


def _unchanged_since(stored: Bars, known: Bars) -> Times:
    """Open times of the stored bars that are as they were."""
    common, there, here = np.intersect1d(stored.time, known.time, assume_unique=True, return_indices=True)
    return np.asarray(common[(table(stored)[there] == table(known)[here]).all(axis=1)])


def _known(differing: tuple[WaitingBar, ...], common: Times, new: Any) -> Any:
    """True for the bars whose offered values wait for a person or were decided against, shape (n_common,)."""
    offered = {pd.Timestamp(bar.time).value: bar.offered for bar in differing}
    return np.array(
        [offered.get(int(time)) == tuple(values) for time, values in zip(common, new.tolist(), strict=True)],
        dtype=np.bool_,
    )


def _remember(
    waiting: dict[int, WaitingBar],
    time: int,
    stored: Any,
    offered: Any | None,
    source: str,
    now: datetime,
    cause: str,
) -> None:
    values = None if offered is None else tuple(offered.tolist())
    before = waiting.get(time)
    if before is None or before.offered != values:
        waiting[time] = WaitingBar(
            time=moment(time),
            stored=tuple(stored.tolist()),
            offered=values,
            source=source,
            seen_at=now,
            cause=cause,
        )


def why_waiting(bar: WaitingBar) -> str:
    """Reason why a differing bar needs a person."""
    if bar.cause:
        return bar.cause
    if bar.offered is None:
        return "the exchange no longer has a bar between bars it has"
    change = price_changes(np.array([bar.stored]), np.array([bar.offered]))[0]
    if change > PRICE_TOLERANCE:
        return f"a price changes by more than {PRICE_TOLERANCE:.0%}"
    volumes = bar.stored[-1], bar.offered[-1]
    if min(volumes) * VOLUME_TOLERANCE < max(volumes):
        return f"a volume changes by a factor of more than {VOLUME_TOLERANCE:.0f}"
    return "the bar is older than the bars that a fetch corrects"
