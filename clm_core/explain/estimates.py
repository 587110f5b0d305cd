"""Estimates with intervals for forecasts whose outcomes overlap: see `forecasts`."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from clm_core.domain import measures
from clm_core.market.bars import Floats

Z = 1.959963984540054
"""Normal quantile of an interval of 95 %."""


@dataclass(frozen=True)
class BoundedEstimate:
    """Estimate with an interval of 95 %."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        return {name: measures.finite_or_none(each) for name, each in asdict(self).items()}

    def written(self, write: Callable[[float], str]) -> str:
        """`54.6% (44.7% to 64.1%)`.

        Args:
            write: formatter of the numbers.
        """
        return measures.with_interval(self.value, self.low, self.high, write)


NOT_MEASURED = BoundedEstimate(math.nan, math.nan, math.nan)


def wilson(value: float, independent: float) -> BoundedEstimate:
    """Share with the interval of Wilson (1927); the whole of 0..1 for less than a single observation.

    Args:
        value: share, 0..1.
        independent: number of independent observations.
    """
    if not independent >= 1.0:
        return BoundedEstimate(value, 0.0, 1.0)
    shrink = 1.0 / (1.0 + Z**2 / independent)
    centre = shrink * (value + Z**2 / (2 * independent))
    half = shrink * Z * math.sqrt(value * (1 - value) / independent + Z**2 / (4 * independent**2))
    return BoundedEstimate(value, max(centre - half, 0.0), min(centre + half, 1.0))


def mean_of(values: Floats, independent: float) -> BoundedEstimate:
    """Mean with a normal interval; NaN without values.

    Args:
        values: shape (n,).
        independent: number of independent observations.
    """
    if not len(values):
        return NOT_MEASURED
    value = float(values.mean())
    half = Z * float(values.std()) / math.sqrt(max(independent, 1.0))
    return BoundedEstimate(value, value - half, value + half)


def skill_of(losses: Floats, of_constant: Floats, independent: float) -> BoundedEstimate:
    """1 - mean loss / mean loss of a constant; NaN where the constant has no loss.

    Args:
        losses: loss of each forecast, shape (n,).
        of_constant: loss of the constant, shape (n,).
        independent: number of independent observations.
    """
    scale = float(of_constant.mean())
    if not scale > 0:
        return NOT_MEASURED
    return mean_of((of_constant - losses) / scale, independent)


def correlation(one: Floats, other: Floats, independent: float) -> BoundedEstimate:
    """Correlation with the interval of Fisher (1921); NaN for a constant, and below 5 observations.

    Args:
        one: shape (n,).
        other: shape (n,).
        independent: number of independent observations.
    """
    if not (independent >= 5 and one.std() > 0 and other.std() > 0):
        return NOT_MEASURED
    value = float(np.corrcoef(one, other)[0, 1])
    centre = math.atanh(min(max(value, -0.999999), 0.999999))
    half = Z / math.sqrt(independent - 3)
    return BoundedEstimate(value, math.tanh(centre - half), math.tanh(centre + half))
