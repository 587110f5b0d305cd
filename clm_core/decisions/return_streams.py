"""Returns drawn with a known edge, to measure how often a test is wrong."""

from enum import StrEnum

import numpy as np

from clm_core.market.bars import Floats


class Shape(StrEnum):
    """How returns are distributed; each has mean 0 and variance 1 before an edge is added."""

    NORMAL = "normal"
    STUDENT = "student-t(3)"
    """Independent, Student's t with 3 degrees of freedom: its kurtosis does not exist."""
    SKEWED = "skewed"
    """Independent, one minus a standard exponential: many small gains, few large losses, skewness -2."""
    AUTOREGRESSIVE = "AR(1) 0.2"
    """Each return carries on a fifth of the one before it; normal innovations."""
    GARCH = "GARCH(1,1)"
    """Variance 0.05 + 0.10 of the last square + 0.85 of the last variance, started at its average of 1."""


def draw(shape: Shape, sharpe: float, size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Returns with a Sharpe ratio of `sharpe` a bar and standard deviation 1; size is (bars, streams)."""
    normal = rng.standard_normal(size)
    match shape:
        case Shape.NORMAL:
            unit = normal
        case Shape.STUDENT:
            unit = rng.standard_t(3, size) / np.sqrt(3.0)
        case Shape.SKEWED:
            unit = 1.0 - rng.standard_exponential(size)
        case Shape.AUTOREGRESSIVE:
            unit = _autoregressive(normal, 0.2)
        case Shape.GARCH:
            unit = _garch(normal, 0.05, 0.10, 0.85)
    return unit + sharpe


def _autoregressive(innovations: Floats, slope: float) -> Floats:
    values = innovations.copy()
    scale = np.sqrt(1.0 - slope**2)
    for bar in range(1, len(values)):
        values[bar] = slope * values[bar - 1] + scale * innovations[bar]
    return values


def _garch(innovations: Floats, base: float, shock: float, memory: float) -> Floats:
    values = innovations.copy()
    variance = np.full(values.shape[1], base / (1.0 - shock - memory))
    for bar in range(len(values)):
        values[bar] = np.sqrt(variance) * innovations[bar]
        variance = base + shock * values[bar] ** 2 + memory * variance
    return values
