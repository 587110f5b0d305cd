"""Positions that the shadow pass recorded of one version."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ShadowRecord:
    """Recorded positions of a version, in time order; every array has shape (n_bars,)."""

    time: NDArray[np.int64]
    """Open times of the bars followed by the positions, nanoseconds since 1970-01-01 UTC."""
    position: NDArray[np.float64]
    recorded: NDArray[np.int64]
    """Times of recording, nanoseconds since 1970-01-01 UTC."""


EMPTY = ShadowRecord(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0, dtype=np.int64))
