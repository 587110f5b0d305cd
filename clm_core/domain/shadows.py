"""Positions that the shadow pass recorded of one version."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ShadowRecord:
    """Recorded positions of a version, in time order; every array has shape (n_bars,)."""

    time: "NDArray[np.int64]"
    """Open times of the bars followed by the positions, nanoseconds since 1970-01-01 UTC."""
    position: "NDArray[np.float64]"
    recorded: "NDArray[np.int64]"
    """Times of recording, nanoseconds since 1970-01-01 UTC."""


@cache
def empty_record() -> ShadowRecord:
    """Record without positions."""
    import numpy as np

    return ShadowRecord(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class RecordCheck:
    """Newest comparison of all recorded positions of a version with the positions computed then."""

    checked_at: datetime
    corrections: int
    """Number of corrections of the bars on record at the time."""
    explained: int
    """Number of recorded positions that differ, explained by corrections."""
    problem: str | None
    """Sentence about differences that no correction explains; None without."""
