"""Soundness: constant positions, and forecasts worse than a constant, whatever the return."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clm_core.domain.sizing import FLAT

if TYPE_CHECKING:
    # a look at a version does without the libraries of bars
    from clm_core.market.bars import Floats

MAX_SHARE_OF_ONE_SIDE = 0.95
MIN_POSITION_DEVIATION = 0.01
"""Least standard deviation of the positions, relative to the largest position."""
DUST = 1e-4
"""Share of the capital up to which the largest position counts as none: nothing would be traded."""
WORSE_THAN_CONSTANT = 1.645
"""Standard errors below zero from which on a skill counts as worse than a constant's: 5 %, one-sided."""
LOSSES = ("squared_error", "log_loss", "quantile_loss")


@dataclass(frozen=True)
class Activity:
    """Distribution of a model's positions over short, flat and long."""

    commonest_side: str
    """"short", "flat" or "long"."""
    share: float
    """Share of the bars with the commonest side, 0..1; NaN for positions that are not finite."""
    deviation: float
    """Standard deviation (n) of the positions over the largest position size; 0 without a position beyond
    `DUST`, NaN for positions that are not finite."""


def activity(positions: "Floats") -> Activity:
    """Activity of positions in [-1, 1], shape (n_bars,); NaN for no bar or positions that are not finite."""
    import numpy as np

    if not len(positions) or not np.isfinite(positions).all():
        return Activity("flat", float("nan"), float("nan"))
    sides = np.where(np.abs(positions) <= FLAT, 0.0, np.sign(positions))
    shares = {name: float(np.mean(sides == side)) for name, side in SIDES.items()}
    commonest = max(shares, key=lambda name: shares[name])
    largest = float(np.max(np.abs(positions)))
    deviation = float(np.std(positions / largest)) if largest > DUST else 0.0
    return Activity(commonest, shares[commonest], deviation)


SIDES = {"short": -1.0, "flat": 0.0, "long": 1.0}


@dataclass(frozen=True)
class Skill:
    """Skill of a forecast against a constant, on rows that the fit left out."""

    value: float
    """1 - loss / loss of the constant; 0 is no better than the constant."""
    error: float
    """Standard error of the value; NaN for a fit by a release that measured none."""

    @property
    def least(self) -> float:
        """Value below which the forecast is proven worse than the constant; NaN without an error."""
        return -WORSE_THAN_CONSTANT * self.error

    @property
    def measured(self) -> bool:
        """True if the standard error is known, so that the skill can be compared with zero."""
        return not math.isnan(self.error)

    @property
    def problem(self) -> str | None:
        """Reason against the model in production, or None; none for a skill without a known error.

        Zero is no limit: a real edge has a skill of some thousandths, and a single validation part shows less
        than zero in a sixth of the fits.
        """
        # Written as `value >= least` so that a NaN value refuses.
        if not self.measured or self.value >= self.least:
            return None
        if not math.isfinite(self.value):
            return "the registered model's skill against a constant could not be measured"
        distance = f", {-self.value / self.error:.1f} standard errors below zero" if self.error > 0 else ""
        return f"the registered model's forecast is worse than a constant: skill {self.value:.2%}{distance}"


def skill_of(train_metrics: Mapping[str, float]) -> Skill | None:
    """Skill in the metrics of a fit, or None for a kind of model without a loss."""
    if "skill" in train_metrics:
        return Skill(train_metrics["skill"], train_metrics.get("skill_error", math.nan))
    for name in LOSSES:
        loss = train_metrics.get(f"validation_{name}")
        constant = train_metrics.get(f"validation_{name}_of_constant")
        if loss is not None and constant:
            return Skill(1.0 - loss / constant, math.nan)
    return None
