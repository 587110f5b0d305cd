import numpy as np
import pytest
from scipy import stats

from clm_core.evidence.slippage import mean_slippage, slippage_bps


def test_slippage_is_positive_where_a_fill_is_worse_than_the_paper_price() -> None:
    change = np.array([1.0, 1.0, -0.5, -0.5])
    price = np.array([100.1, 99.9, 99.9, 100.1])
    assert slippage_bps(change, price, np.full(4, 100.0)) == pytest.approx([10.0, -10.0, 10.0, -10.0])


def test_equal_fills_one_a_bar_have_the_interval_of_a_mean() -> None:
    slippage = np.random.default_rng(0).normal(2.0, 3.0, 40)
    estimate = mean_slippage(np.arange(40), np.tile([1.0, -1.0], 20), slippage)
    low, high = stats.t.interval(0.95, 39, loc=slippage.mean(), scale=stats.sem(slippage))
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((slippage.mean(), low, high))


def test_the_fills_of_a_bar_are_one_measurement_weighted_by_value() -> None:
    row = np.array([0, 0, 3, 5])
    estimate = mean_slippage(row, np.array([0.5, 0.5, 1.0, -1.0]), np.array([2.0, 4.0, 1.0, 2.0]))
    assert estimate == mean_slippage(row[1:], np.array([1.0, 1.0, -1.0]), np.array([3.0, 1.0, 2.0]))
    assert mean_slippage(row[:2], np.ones(2), np.ones(2)) is None
    assert mean_slippage(row[:0], np.ones(0), np.ones(0)) is None


def test_intervals_cover_the_slippage_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        row = rng.integers(0, 30, 60)
        slippage = 2.0 + rng.normal(0.0, 3.0, 30)[row]
        estimate = mean_slippage(row, rng.uniform(0.2, 1.0, 60), slippage)
        assert estimate is not None
        covered += estimate.low <= 2.0 <= estimate.high
    # a ratio of weighted sums over about 26 bars covers a little less than 95 %
    assert 0.90 <= covered / 1000 <= 0.97
