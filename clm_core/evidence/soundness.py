"""Whether a model decides anything: one that always says the same has collapsed, whatever it earned."""

from dataclasses import dataclass

import numpy as np

from clm_core.market.bars import Floats

LARGEST_SHARE_OF_ONE_SIDE = 0.95
SMALLEST_DEVIATION = 0.01
FLAT = 1e-9
"""Positions no larger than this are none."""


@dataclass(frozen=True)
class Activity:
    """How much the positions of a model say."""

    commonest_side: str
    """"short", "flat" or "long"."""
    share: float
    """Of the bars on which the model took its commonest side, 0..1; NaN for positions that are not finite."""
    deviation: float
    """Standard deviation (n) of the positions."""


def activity(positions: Floats) -> Activity:
    """Summarise positions in [-1, 1], shape (n_bars,), at least one bar."""
    if not len(positions) or not np.isfinite(positions).all():
        return Activity("flat", float("nan"), float("nan"))
    sides = np.where(np.abs(positions) <= FLAT, 0.0, np.sign(positions))
    shares = {name: float(np.mean(sides == side)) for name, side in SIDES.items()}
    commonest = max(shares, key=lambda name: shares[name])
    return Activity(commonest, shares[commonest], float(np.std(positions)))


SIDES = {"short": -1.0, "flat": 0.0, "long": 1.0}
