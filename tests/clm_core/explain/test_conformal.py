"""Coverage of adaptive conformal intervals on simulated streams."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from clm_core.explain.conformal import MIN_ERRORS, half_widths
from clm_core.market.bars import Floats

LENGTH = 6_000


def autoregressive(rng: np.random.Generator) -> Floats:
    """Errors of the right forecast of an autoregression of order 1."""
    values = np.zeros(LENGTH)
    steps = rng.normal(size=LENGTH)
    for row in range(1, LENGTH):
        values[row] = 0.6 * values[row - 1] + steps[row]
    return np.asarray(values[1:] - 0.6 * values[:-1])


def garch(rng: np.random.Generator) -> Floats:
    """Returns of a GARCH(1, 1) with persistence 0.98."""
    returns = np.empty(LENGTH)
    variance = 1.0
    for row, shock in enumerate(rng.normal(size=LENGTH).tolist()):
        returns[row] = math.sqrt(variance) * shock
        variance = 0.02 + 0.1 * returns[row] ** 2 + 0.88 * variance
    return returns


def shifted(rng: np.random.Generator) -> Floats:
    """Noise three times as large from the middle on."""
    return np.where(np.arange(LENGTH) < LENGTH // 2, 1.0, 3.0) * rng.normal(size=LENGTH)


@pytest.mark.parametrize("horizon", [1, 24])
@pytest.mark.parametrize("stream", [autoregressive, garch, shifted])
@pytest.mark.parametrize("seed", [1, 2])
def test_intervals_of_90_percent_hold_88_to_92_percent(
    stream: Callable[[np.random.Generator], Floats], horizon: int, seed: int
) -> None:
    values = stream(np.random.default_rng(seed))
    errors = np.abs(np.convolve(values, np.ones(horizon), mode="valid"))
    widths = half_widths(errors, np.arange(len(errors)) + horizon, horizon)
    measured = ~np.isnan(widths)
    assert np.mean(errors[measured] <= widths[measured]) == pytest.approx(0.9, abs=0.02)
    assert np.isinf(widths).mean() < 0.02


def test_a_fixed_quantile_loses_the_coverage_after_a_shift() -> None:
    errors = np.abs(shifted(np.random.default_rng(1)))
    fixed = np.quantile(errors[: LENGTH // 2], 0.9)
    assert np.mean(errors[LENGTH // 2 :] <= fixed) < 0.5


def test_an_interval_knows_no_outcome_after_its_bar() -> None:
    rng = np.random.default_rng(3)
    errors = np.abs(rng.normal(size=600))
    known = np.arange(600) + 24
    before = half_widths(errors, known)
    changed = errors.copy()
    changed[300:] *= 100
    after = half_widths(changed, known)
    assert np.array_equal(before[: 300 + 24], after[: 300 + 24], equal_nan=True)
    assert after[340] > before[340]


def test_there_is_no_interval_before_a_hundred_outcomes_and_without_an_error_one() -> None:
    errors = np.ones(300)
    errors[5] = np.nan
    widths = half_widths(errors, np.arange(300) + 1)
    assert np.isnan(widths[: MIN_ERRORS + 1]).all()
    assert (widths[MIN_ERRORS + 1 :] == 1.0).all()
