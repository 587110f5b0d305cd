"""Confidence for evidence that is judged again and again while it grows."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from clm_core.evidence.repeated_looks import confidence_of_looks


@pytest.mark.parametrize("growth", [1.25, 1.5, 3.0])
def test_daily_looks_at_a_growing_record_err_no_more_often_than_a_single_one(growth: float) -> None:
    rng = np.random.default_rng(1)
    streams = 20_000
    start = 365
    limit = NormalDist().inv_cdf(confidence_of_looks(0.95, growth))
    total = rng.normal(0.0, math.sqrt(start), streams)
    crossed = total / math.sqrt(start) >= limit
    for n in range(start + 1, round(start * growth) + 1):
        total += rng.standard_normal(streams)
        crossed |= total / math.sqrt(n) >= limit
    error = math.sqrt(0.05 * 0.95 / streams)
    assert 0.03 < crossed.mean() < 0.05 + 2 * error


def test_a_record_that_does_not_grow_keeps_its_confidence() -> None:
    assert confidence_of_looks(0.95, 1.0) == pytest.approx(0.95)


@pytest.mark.parametrize("growth", [0.5, math.nan, math.inf])
def test_an_unknown_growth_lets_nothing_pass(growth: float) -> None:
    assert math.isnan(confidence_of_looks(0.95, growth))
