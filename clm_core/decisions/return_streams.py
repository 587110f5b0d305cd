"""Random returns with a known edge, to measure the error rates of tests."""

from enum import StrEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.market.bars import Floats

AUTOREGRESSION = 0.2
"""Coefficient of `Shape.AUTOREGRESSIVE`."""


class Shape(StrEnum):
    """Distribution of returns, each with mean 0 and variance 1 before an edge is added."""

    NORMAL = "normal"
    STUDENT = "student-t(3)"
    """Independent, Student's t with 3 degrees of freedom, for which no kurtosis exists."""
    SKEWED = "skewed"
    """Independent, 1 minus a standard exponential: many small gains, few large losses, skewness -2."""
    AUTOREGRESSIVE = "AR(1) 0.2"
    """First-order autoregression with coefficient 0.2 and normal innovations."""
    GARCH = "GARCH(1,1)"
    """Variance 0.05 + 0.10 x last squared return + 0.85 x last variance, started at the average of 1."""


def draw_returns(shape: Shape, sharpe: float, size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Random returns of standard deviation 1.

    Args:
        sharpe: true Sharpe ratio of a bar, added as the mean.
        size: (n_bars, n_streams), the shape of the result.
    """
    normal = rng.standard_normal(size)
    match shape:
        case Shape.NORMAL:
            unit = normal
        case Shape.STUDENT:
            unit = rng.standard_t(3, size) / np.sqrt(3.0)
        case Shape.SKEWED:
            unit = 1.0 - rng.standard_exponential(size)
        case Shape.AUTOREGRESSIVE:
            unit = _autoregressive(normal, AUTOREGRESSION)
        case Shape.GARCH:
            unit = _garch(normal, 0.05, 0.10, 0.85)
    return unit + sharpe


def variance_ratio(shape: Shape, bars: NDArray[np.int64]) -> Floats:
    """Variance of the sum of consecutive returns over the number of the returns, shape of `bars`."""
    if shape is not Shape.AUTOREGRESSIVE:
        return np.ones(len(bars))
    slope = AUTOREGRESSION
    ends = 2.0 * slope * (1.0 - slope**bars) / (bars * (1.0 - slope) ** 2)
    return np.asarray((1.0 + slope) / (1.0 - slope) - ends)


@njit(cache=True, nogil=True)
def _autoregressive(innovations: Floats, slope: float) -> Floats:
    values = innovations.copy()
    scale = np.sqrt(1.0 - slope**2)
    # a loop is compiled in a tenth of the time of array expressions
    for bar in range(1, len(values)):
        for stream in range(values.shape[1]):
            values[bar, stream] = slope * values[bar - 1, stream] + scale * innovations[bar, stream]
    return values


@njit(cache=True, nogil=True)
def _garch(innovations: Floats, base: float, shock: float, memory: float) -> Floats:
    values = innovations.copy()
    variance = np.full(values.shape[1], base / (1.0 - shock - memory))
    for bar in range(len(values)):
        values[bar] = np.sqrt(variance) * innovations[bar]
        variance = base + shock * values[bar] ** 2 + memory * variance
    return values
