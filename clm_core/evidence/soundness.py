"""Soundness of positions: a model with constant positions has collapsed, whatever the return."""

from dataclasses import dataclass

import numpy as np

from clm_core.market.bars import Floats

MAX_SHARE_OF_ONE_SIDE = 0.95
MIN_POSITION_DEVIATION = 0.01
FLAT = 1e-9
"""Positions of at most this size count as flat."""


@dataclass(frozen=True)
class Activity:
    """Distribution of a model's positions over short, flat and long."""

    commonest_side: str
    """"short", "flat" or "long"."""
    share: float
    """Share of the bars with the commonest side, 0..1; NaN for positions that are not finite."""
    deviation: float
    """Standard deviation (n) of the positions; NaN for positions that are not finite."""


def activity(positions: Floats) -> Activity:
    """Activity of positions in [-1, 1], shape (n_bars,); NaN for no bar or positions that are not finite."""
    if not len(positions) or not np.isfinite(positions).all():
        return Activity("flat", float("nan"), float("nan"))
    sides = np.where(np.abs(positions) <= FLAT, 0.0, np.sign(positions))
    shares = {name: float(np.mean(sides == side)) for name, side in SIDES.items()}
    commonest = max(shares, key=lambda name: shares[name])
    return Activity(commonest, shares[commonest], float(np.std(positions)))


SIDES = {"short": -1.0, "flat": 0.0, "long": 1.0}
