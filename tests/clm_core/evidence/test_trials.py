"""Effective number of trials: copies do not count, and uncertainty raises the count."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.evidence import trials
from clm_core.evidence.track_record import expected_maximum_sharpe, probabilistic_sharpe_ratio, track_record
from clm_core.market.bars import Floats


def clusters(count: int, size: int, correlation: float) -> np.ndarray:
    matrix = np.kron(np.eye(count), np.full((size, size), correlation))
    np.fill_diagonal(matrix, 1.0)
    return matrix


def chain(count: int, correlation: float) -> np.ndarray:
    """Correlations of weekly retrains, highest between neighbours."""
    steps = np.arange(count)
    return correlation ** np.abs(steps[:, None] - steps[None, :])


def luck_of_the_best(correlations: np.ndarray) -> float:
    """Expected maximum of normal variables with the given correlations, by simulation."""
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
def test_the_count_never_falls_below_the_count_implied_by_the_best_trial(correlations: np.ndarray) -> None:
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


def test_unknown_correlations_give_no_count() -> None:
    assert math.isnan(trials.effective_trials(np.array([[1.0, math.nan], [math.nan, 1.0]])))


def test_correlations_are_numpys_where_all_bars_are_shared() -> None:
    returns = np.random.default_rng(1).standard_normal((300, 5)) @ np.tri(5) + 3.0
    np.testing.assert_allclose(trials.trial_correlations(returns), np.corrcoef(returns.T), atol=1e-12)


def test_trials_correlate_over_the_bars_they_share() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.standard_normal((2, 300))
    second += first
    early = first.copy()
    late = second.copy()
    early[200:] = math.nan
    late[:100] = math.nan
    shared = np.corrcoef(first[100:200], second[100:200])[0, 1]
    assert trials.trial_correlations(np.column_stack([early, late]))[0, 1] == pytest.approx(shared)


@pytest.mark.parametrize("shared", [0, 19])
def test_trials_that_share_too_few_bars_count_as_independent(shared: int) -> None:
    returns = np.tile(np.random.default_rng(3).standard_normal((100, 1)), 2)
    returns[60:, 0] = math.nan
    returns[: 60 - shared, 1] = math.nan
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
        ([0.1], [101.0], 0.0),
        ([0.1, 0.1, 0.1], [101.0] * 3, 0.0),
        ([0.1, 0.5], [101.0, 101.0], 0.08 - 0.01),
        ([0.1, 0.5], [101.0, 11.0], 0.08 - 0.055),
        ([], [], 0.0),
        ([0.1, math.nan], [101.0, math.nan], math.nan),
    ],
    ids=["one", "alike", "apart", "of different lengths", "none", "one unknown"],
)
def test_the_dispersion_of_trials_is_the_part_not_explained_by_chance(
    sharpes: list[float], bars: list[float], expected: float
) -> None:
    dispersion = trials.dispersion(np.array(sharpes), np.array(bars))
    assert dispersion == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("dispersion", "bars", "expected"),
    [
        (0.0, 101.0, 0.01),
        (0.02, 101.0, 0.03),
        (0.0, 1.0, math.nan),
        (0.0, math.nan, math.nan),
        (math.nan, 101.0, math.nan),
    ],
    ids=["alike", "apart", "thin record", "no record", "unknown trials"],
)
def test_a_record_varies_by_chance_and_by_the_dispersion_of_the_trials(
    dispersion: float, bars: float, expected: float
) -> None:
    assert trials.sharpe_variance(dispersion, bars) == pytest.approx(expected, nan_ok=True)


def daily(returns: Floats, first_day: int = 0) -> trials.TrialRecord:
    times = (first_day + np.arange(len(returns))) * trials.DAY
    return trials.trial_record(times, returns, track_record(returns))


def noise(seed: int, bars: int = 400) -> Floats:
    return np.random.default_rng(seed).standard_normal(bars)


def test_a_day_s_returns_are_kept_as_their_sum_and_days_without_bars_as_unknown() -> None:
    hours = np.array([0, 1, 25, 80]) * trials.DAY // 24
    returns = np.array([0.01, 0.02, -0.03, 0.04])
    kept = trials.trial_record(hours + 5 * trials.DAY, returns, track_record(returns))
    assert kept.first_day == 5
    np.testing.assert_allclose(kept.daily, [0.03, -0.03, math.nan, 0.04])


def test_the_same_trial_again_counts_once() -> None:
    again = [daily(noise(1))] * 5
    assert trials.count_trials(again).effective == pytest.approx(1.0)
    assert trials.count_trials(again).trials == 5


def test_unrelated_trials_count_each_and_never_less_than_is_presumed() -> None:
    unrelated = [daily(noise(seed, 2000)) for seed in range(12)]
    assert trials.count_trials(unrelated).effective == pytest.approx(12.0, rel=0.01)
    assert trials.count_trials(unrelated, min_trials=50.0).effective == 50.0


def test_trials_of_days_that_do_not_meet_are_unrelated() -> None:
    disjoint = [daily(noise(1), first_day) for first_day in (0, 400)]
    assert trials.count_trials(disjoint).effective == pytest.approx(2.0)


def test_more_trials_than_days_are_not_taken_for_copies_of_each_other() -> None:
    many = [daily(noise(seed, 40)) for seed in range(200)]
    assert trials.count_trials(many).effective > 180


def test_a_trial_that_never_traded_counts_without_an_effect_on_the_others() -> None:
    traded = [daily(noise(seed)) for seed in range(2)]
    flat = daily(np.zeros(400))
    with_it = trials.count_trials([*traded, flat])
    without = trials.count_trials(traded)
    assert with_it.effective == pytest.approx(without.effective + 1.0)
    assert with_it.dispersion == without.dispersion


def test_a_trial_whose_returns_are_not_known_counts() -> None:
    unknown = trials.TrialRecord(math.nan, math.nan, 10, np.zeros(0))
    assert trials.count_trials([daily(noise(1)), unknown]).effective == pytest.approx(2.0)


def test_the_bars_that_pass_are_the_fewest_that_do() -> None:
    record = track_record(noise(3, 500) + 0.08)
    count = trials.TrialCount(20, 20.0, 0.0)
    needed = int(trials.bars_to_pass(record, count, 0.95))

    def passes(bars: int) -> bool:
        effective = record.effective_bars / record.bars * bars
        longer = replace(record, bars=bars, effective_bars=effective)
        return probabilistic_sharpe_ratio(longer, count.expected_maximum(effective)) >= 0.95

    assert passes(needed)
    assert not passes(needed - 1)


@pytest.mark.parametrize(
    ("returns", "count", "expected"),
    [
        (noise(3) - 0.5, trials.TrialCount(1, 1.0, 0.0), math.inf),
        (noise(3) + 0.1, trials.TrialCount(50, 50.0, 0.1), math.inf),
        (np.zeros(400), trials.TrialCount(1, 1.0, 0.0), math.nan),
        (noise(3), trials.TrialCount(1, math.nan, 0.0), math.nan),
    ],
    ids=["a loss", "trials far apart", "nothing measured", "trials not counted"],
)
def test_a_record_that_never_passes_needs_infinite_bars(
    returns: Floats, count: trials.TrialCount, expected: float
) -> None:
    assert trials.bars_to_pass(track_record(returns), count, 0.95) == pytest.approx(expected, nan_ok=True)
