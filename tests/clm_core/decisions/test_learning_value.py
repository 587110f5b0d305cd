"""Differences of production and the frozen champion, with intervals."""

import numpy as np
import pytest

from clm_core.decisions.learning_value import measure_learning
from clm_core.evidence.bootstrap import total_return_interval
from clm_core.evidence.sequential import DAY

DAYS = 2000
TIME = np.arange(DAYS, dtype=np.int64) * DAY
YEAR = 365.25
ALL = np.ones(DAYS, dtype=np.bool_)


def test_the_difference_of_the_sharpe_ratios_is_at_equal_volatility() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(0.0, 0.01, DAYS)
    own = rng.normal(0.0, 0.01, DAYS)
    # a Sharpe ratio of 2 more a year, at three times the size
    better = 3.0 * (0.9 * common + np.sqrt(0.19) * own + 2.0 * 0.01 / np.sqrt(YEAR))
    figures = measure_learning(TIME, DAY, better, common, ALL, YEAR)
    assert figures is not None
    assert figures.sharpe_difference is not None
    assert figures.sharpe_difference.value == pytest.approx(2.0, abs=0.6)
    assert figures.sharpe_difference.low < 2.0 < figures.sharpe_difference.high
    size = measure_learning(TIME, DAY, 4.0 * common, common, ALL, YEAR)
    assert size is not None
    assert size.sharpe_difference is None, "four times the size is no difference"


def test_equal_returns_have_no_difference_and_few_bars_no_interval() -> None:
    returns = np.random.default_rng(2).normal(0.0, 0.01, DAYS)
    same = measure_learning(TIME, DAY, returns, returns, ALL, YEAR)
    assert same is not None
    assert (same.return_difference, same.sharpe_difference) == (None, None)
    few = measure_learning(TIME, DAY, returns, returns[::-1], np.arange(DAYS) < 20, YEAR)
    assert few is not None
    assert (few.return_difference, few.sharpe_difference) == (None, None)
    assert few.production_return == pytest.approx(np.prod(1.0 + returns[:20]) - 1.0)
    assert measure_learning(TIME, DAY, returns, returns, ~ALL, YEAR) is None


def test_the_interval_of_the_total_return_covers_the_truth_as_often_as_stated() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    truth = 1.001**100 - 1.0
    for _ in range(200):
        common = rng.normal(0.0, 0.01, 100)
        own = rng.normal(0.001, 0.005, 100)
        interval = total_return_interval(common + own, common, 0.95, 300, rng)
        covered += interval.low <= truth <= interval.high
    assert 0.88 <= covered / 200 <= 0.99
    loss = np.array([0.1, -1.0, 0.2])
    assert np.isnan(total_return_interval(loss, loss + 0.1, 0.95, 100, rng).low)
