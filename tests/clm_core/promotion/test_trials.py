"""Copies of a trial are no trials; every doubt counts as one more."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.promotion import trials
from clm_core.promotion.evidence import expected_maximum_sharpe


def clusters(count: int, size: int, correlation: float) -> np.ndarray:
    matrix = np.kron(np.eye(count), np.full((size, size), correlation))
    np.fill_diagonal(matrix, 1.0)
    return matrix


def chain(count: int, correlation: float) -> np.ndarray:
    """Weekly retrains: each resembles the last one most."""
    steps = np.arange(count)
    return correlation ** np.abs(steps[:, None] - steps[None, :])


def luck_of_the_best(correlations: np.ndarray) -> float:
    """Expected maximum of normal variables correlated so, by simulation."""
    values, vectors = np.linalg.eigh(correlations)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = np.random.default_rng(0).standard_normal((len(correlations), 4000))
    return float((root @ normal).max(axis=0).mean())


PATTERNS = {
    "independent": clusters(52, 1, 0.0),
    "alike": clusters(1, 52, 0.5),
    "near copies": clusters(1, 52, 0.9),
    "ten clusters": clusters(10, 10, 0.9),
    "many small clusters": clusters(25, 4, 0.7),
    "slow chain": chain(52, 0.9),
    "very slow chain": chain(52, 0.99),
}


@pytest.mark.parametrize("correlations", PATTERNS.values(), ids=PATTERNS)
def test_the_count_never_falls_below_what_the_luck_of_the_best_implies(correlations: np.ndarray) -> None:
    counted = trials.effective_trials(correlations)
    assert expected_maximum_sharpe(1.0, counted) >= luck_of_the_best(correlations) - 0.03


def test_independent_trials_all_count_and_copies_count_once() -> None:
    assert trials.effective_trials(np.eye(7)) == pytest.approx(7.0)
    assert trials.effective_trials(np.ones((7, 7))) == pytest.approx(1.0)
    assert trials.effective_trials(np.kron(np.eye(3), np.ones((5, 5)))) == pytest.approx(3.0)
    assert trials.effective_trials(np.eye(1)) == 1.0


def test_the_count_is_galweys_for_two_correlated_trials() -> None:
    """Eigenvalues 1.6 and 0.4: (sqrt(1.6) + sqrt(0.4)) ** 2 / 2 = 1.8."""
    assert trials.effective_trials(np.array([[1.0, 0.6], [0.6, 1.0]])) == pytest.approx(1.8)


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_the_count_lies_between_one_and_the_number_of_trials(n_trials: int, seed: int) -> None:
    returns = np.random.default_rng(seed).standard_normal((40, n_trials)) @ np.tri(n_trials)
    counted = trials.effective_trials(trials.trial_correlations(returns))
    assert 1.0 - 1e-9 <= counted <= n_trials + 1e-9


def test_correlations_nobody_knows_count_nothing() -> None:
    assert math.isnan(trials.effective_trials(np.array([[1.0, math.nan], [math.nan, 1.0]])))


def test_correlations_are_numpys_where_all_bars_are_shared() -> None:
    returns = np.random.default_rng(1).standard_normal((300, 5)) @ np.tri(5) + 3.0
    np.testing.assert_allclose(trials.trial_correlations(returns), np.corrcoef(returns.T), atol=1e-12)


def test_trials_correlate_over_the_bars_they_share() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.standard_normal((2, 300))
    second += first
    early, late = first.copy(), second.copy()
    early[200:], late[:100] = math.nan, math.nan
    shared = np.corrcoef(first[100:200], second[100:200])[0, 1]
    assert trials.trial_correlations(np.column_stack([early, late]))[0, 1] == pytest.approx(shared)


@pytest.mark.parametrize("shared", [0, 19])
def test_trials_that_share_too_few_bars_count_as_independent(shared: int) -> None:
    returns = np.tile(np.random.default_rng(3).standard_normal((100, 1)), 2)
    returns[60:, 0], returns[: 60 - shared, 1] = math.nan, math.nan
    np.testing.assert_array_equal(trials.trial_correlations(returns), np.eye(2))


def test_a_trial_that_never_trades_counts_as_one() -> None:
    returns = np.column_stack([np.random.default_rng(4).standard_normal(50), np.zeros(50), np.full(50, 0.1)])
    np.testing.assert_array_equal(trials.trial_correlations(returns), np.eye(3))


def test_infinite_returns_are_refused() -> None:
    with pytest.raises(ValueError, match="mark bars"):
        trials.trial_correlations(np.array([[1.0, math.inf]]))


@pytest.mark.parametrize(
    ("sharpes", "bars", "expected"),
    [
        ([0.1], 101.0, 0.01),
        ([0.1, 0.1, 0.1], 101.0, 0.01),
        ([0.1, 0.5], 101.0, 0.08),
        ([], 101.0, math.nan),
        ([0.1, math.nan], 101.0, math.nan),
        ([math.nan], 101.0, math.nan),
        ([0.1, math.inf], 101.0, math.nan),
        ([0.1, 0.5], 1.0, math.nan),
        ([0.1, 0.5], math.nan, math.nan),
    ],
    ids=["one", "alike", "apart", "none", "one unknown", "unknown", "infinite", "thin record", "no record"],
)
def test_trials_are_as_far_apart_as_they_are_but_at_least_as_chance_throws_them(
    sharpes: list[float], bars: float, expected: float
) -> None:
    assert trials.sharpe_variance(np.array(sharpes), bars) == pytest.approx(expected, nan_ok=True)
