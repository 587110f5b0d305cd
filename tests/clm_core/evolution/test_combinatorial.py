"""Metrics of the test sets against a slow loop over the bars and trades of each set."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.backtest.metrics import max_drawdown, profit_factor, sharpe_ratio, win_rate
from clm_core.decisions.gate import promotion_score
from clm_core.domain.errors import NotEnoughBars
from clm_core.evolution.combinatorial import TestSets, lower_quartile
from clm_core.evolution.pareto import Ints
from clm_core.market.bars import Floats

HOURS = 8_760.0


def slow(returns: Floats, exits: Ints, gains: Floats, groups: int, tested: int) -> Floats:
    """Metrics of each set, by the definitions and from the joined bars and trades."""
    bounds = [g * len(returns) // groups for g in range(groups + 1)]
    bars = [np.arange(first, end) for first, end in pairwise(bounds)]
    rows = []
    for chosen in combinations(range(groups), tested):
        kept = np.concatenate([bars[g] for g in chosen])
        joined = returns[kept]
        closed = gains[np.isin(exits, kept)]
        sharpe = sharpe_ratio(joined, HOURS)
        won = win_rate(closed)
        factor = profit_factor(closed)
        rows.append([sharpe, max_drawdown(joined), won, factor, promotion_score(sharpe, won, factor)])
    return np.array(rows)


@given(st.integers(0, 2**32 - 1), st.integers(60, 400), st.sampled_from([(10, 2), (6, 3), (5, 1), (4, 4)]))
@settings(deadline=None, max_examples=60)
def test_metrics_of_each_set_are_those_of_its_joined_bars_and_trades(
    seed: int, n_bars: int, plan: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    # flat bars, as a rule has
    returns = rng.normal(0.0002, 0.02, n_bars) * (rng.random(n_bars) < 0.6)
    exits = np.sort(rng.integers(0, n_bars, 30))
    gains = rng.normal(0.0, 0.05, 30).round(2)
    measured = TestSets.of(n_bars, *plan).metrics(returns, exits, gains, HOURS)
    assert measured.shape == (math.comb(*plan), 5)
    assert measured == pytest.approx(slow(returns, exits, gains, *plan), rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("value", [0.0, 0.001, -1.0])
def test_constant_returns_and_ruin_are_measured_as_the_metrics_define_them(value: float) -> None:
    returns = np.full(100, value)
    nothing = np.empty(0, np.int64)
    measured = TestSets.of(100).metrics(returns, nothing, np.empty(0), HOURS)
    assert measured == pytest.approx(slow(returns, nothing, np.empty(0), 10, 2), nan_ok=True)
    assert (measured[:, 0] == 0.0).all()
    assert np.isnan(measured[:, 2:4]).all()


def test_two_of_ten_groups_are_45_sets_and_each_group_is_in_nine_of_them() -> None:
    sets = TestSets.of(26_003)
    assert len(sets) == 45
    assert np.bincount(sets.groups.ravel()).tolist() == [9] * 10
    assert set(np.diff(sets.bounds).tolist()) == {2_600, 2_601}


def test_a_drawdown_continues_from_one_group_to_the_next_of_the_set() -> None:
    returns = np.array([0.0, 1.0, -0.5, 0.0, 0.0, 0.0, -0.5, 0.0])
    measured = TestSets.of(8, groups=4, tested=2).metrics(returns, np.empty(0, np.int64), np.empty(0), HOURS)
    # groups (0, 1.0), (-0.5, 0), (0, 0), (-0.5, 0); sets 01, 02, 03, 12, 13, 23
    assert measured[:, 1] == pytest.approx([-0.5, 0.0, -0.5, -0.5, -0.75, -0.5])


def test_a_trade_belongs_to_the_group_of_its_exit() -> None:
    sets = TestSets.of(8, groups=4, tested=1)
    measured = sets.metrics(np.zeros(8), np.array([1, 2, 3, 3]), np.array([0.1, 0.2, -0.4, 0.0]), HOURS)
    assert measured[:, 2] == pytest.approx([1.0, 1 / 3, np.nan, np.nan], nan_ok=True)
    assert measured[:, 3] == pytest.approx([np.inf, 0.5, np.nan, np.nan], nan_ok=True)


def test_too_few_bars_and_too_many_tested_groups_are_refused() -> None:
    with pytest.raises(NotEnoughBars, match="give at least 20 bars"):
        TestSets.of(19)
    with pytest.raises(ValueError, match="give 1 to 10 groups to test, not 11"):
        TestSets.of(100, tested=11)


@pytest.mark.parametrize("n_sets", [45, 20, 6, 1])
def test_the_lower_quartile_is_that_of_numpy_with_profit_factors_of_at_most_10(n_sets: int) -> None:
    metrics = np.random.default_rng(n_sets).normal(8.0, 6.0, (7, n_sets, 5))
    expected = metrics.copy()
    expected[..., 3] = np.minimum(expected[..., 3], 10.0)
    assert lower_quartile(metrics) == pytest.approx(np.quantile(expected, 0.25, axis=1))


@pytest.mark.parametrize(("missing", "quartile"), [(0, 11.0), (5, 11.0), (11, 11.0), (12, np.nan)])
def test_unmeasured_sets_count_as_the_lowest_until_the_quartile_is_one_of_them(
    missing: int, quartile: float
) -> None:
    metrics = np.tile(np.arange(45.0)[:, None], (1, 5))
    metrics[:missing] = np.nan
    metrics[:, 3] = np.where(metrics[:, 3] > 9, np.inf, metrics[:, 3])
    quartiles = lower_quartile(metrics)
    assert quartiles[:3] == pytest.approx([quartile] * 3, nan_ok=True)
    assert quartiles[3] == pytest.approx(min(quartile, 10.0), nan_ok=True)
