"""Splits against a slow reference, and numbers of Lopez de Prado (2018), chapter 12."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clm_core.domain.errors import NotEnoughBars
from clm_core.evidence import overfitting


def noise(bars: int, trials: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((bars, trials))


def slow_logits(returns: np.ndarray, blocks: int) -> list[float]:
    parts = np.split(returns, blocks)
    logits = []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.vstack([parts[k] for k in chosen])
        outside = np.vstack([parts[k] for k in range(blocks) if k not in chosen])
        best = int(np.argmax(inside.mean(axis=0) / inside.std(axis=0)))
        rank = stats.rankdata(outside.mean(axis=0) / outside.std(axis=0))[best]
        logits.append(math.log(rank / (returns.shape[1] + 1 - rank)))
    return logits


def test_ranks_are_those_of_splits_written_out() -> None:
    returns = noise(96, 7) + 0.2
    assert overfitting.selection_logits(returns, 8).tolist() == pytest.approx(slow_logits(returns, 8))


def test_sixteen_blocks_have_12870_splits() -> None:
    assert len(overfitting.selection_logits(noise(32, 2), 16)) == math.comb(16, 8) == 12870


def test_a_trial_with_an_edge_is_no_overfitting() -> None:
    returns = noise(1000, 20)
    returns[:, 3] += 0.3
    assert overfitting.probability_of_overfitting(returns) == 0.0


def test_choosing_among_noise_chooses_nothing() -> None:
    chances = [overfitting.probability_of_overfitting(noise(400, 15, seed), 8) for seed in range(60)]
    assert np.mean(chances) == pytest.approx(0.5, abs=0.12)


def test_a_trial_that_only_ever_wins_in_the_other_half_is_always_overfit() -> None:
    """Two trials with mirrored blocks: gains in sample are losses out of sample."""
    early = np.repeat([1.0, 1.0, -1.0, -1.0], 10)[:, None] + 0.1 * noise(40, 1)
    assert overfitting.probability_of_overfitting(np.hstack([early, -early]), 2) == 1.0


def test_trials_without_a_trade_have_earned_nothing() -> None:
    returns = np.column_stack([np.zeros(64), -np.abs(noise(64, 1)[:, 0])])
    assert overfitting.probability_of_overfitting(returns, 4) == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_returns_that_are_not_finite_never_show_a_low_probability(value: float) -> None:
    returns = noise(64, 3)
    returns[5, 1] = value
    assert not overfitting.probability_of_overfitting(returns, 4) <= 1.0


@pytest.mark.parametrize(
    ("shape", "blocks", "message"),
    [((64, 3), 3, "must be even"), ((64, 3), 0, "must be even"), ((64, 1), 4, "at least two")],
)
def test_splits_that_make_no_sense_are_refused(shape: tuple[int, int], blocks: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overfitting.selection_logits(noise(*shape), blocks)


def test_too_few_bars_for_the_blocks_are_refused() -> None:
    with pytest.raises(NotEnoughBars, match="fewer blocks"):
        overfitting.selection_logits(noise(31, 3), 16)


def test_six_groups_two_tested_make_fifteen_folds_and_five_paths() -> None:
    """Lopez de Prado (2018), section 12.3 and figure 12.1."""
    folds = overfitting.combinatorial_purged(np.arange(60), 6, 2, 0)
    assert len(folds) == 15
    assert {path for fold in folds for path in fold.paths} == set(range(5))
    assert sum(fold.test[-1].stop == 60 for fold in folds) == 5


def test_each_path_holds_every_bar_once() -> None:
    folds = overfitting.combinatorial_purged(np.arange(61), 6, 2, 0)
    rows = [np.concatenate([np.arange(61)[part] for part in fold.test]).astype(float) for fold in folds]
    np.testing.assert_array_equal(overfitting.backtest_paths(folds, rows), np.tile(np.arange(61.0), (5, 1)))


@given(
    st.lists(st.integers(-1, 9), min_size=30, max_size=60),
    st.integers(3, 6),
    st.integers(1, 2),
    st.integers(0, 3),
)
def test_no_training_label_reaches_into_a_tested_group_nor_follows_one(
    horizons: list[int], n_groups: int, n_test_groups: int, embargo: int
) -> None:
    rows = np.arange(len(horizons))
    label_end = np.where(np.array(horizons) < 0, -1, np.minimum(rows + horizons, len(rows) - 1))
    try:
        folds = overfitting.combinatorial_purged(label_end, n_groups, n_test_groups, embargo)
    except NotEnoughBars:
        return
    for fold in folds:
        for group in fold.test:
            reach = max(label_end[group].max(), group.stop - 1)
            before = fold.train[fold.train < group.start]
            after = fold.train[fold.train >= group.start]
            assert (label_end[before] + embargo < group.start).all()
            assert (after > reach + embargo).all()
        assert (label_end[fold.train] >= 0).all()


def test_every_other_bar_trains() -> None:
    """Labels of two bars, groups of ten: two bars before each tested group and two after it are left out."""
    label_end = np.minimum(np.arange(40) + 2, 39)
    fold = overfitting.combinatorial_purged(label_end, 4, 1, 0)[1]
    assert fold.test == (slice(10, 20),)
    assert fold.train.tolist() == [*range(8), *range(22, 40)]


@pytest.mark.parametrize(("n_groups", "tested", "embargo"), [(4, 0, 0), (4, 4, 0), (4, 1, -1)])
def test_folds_that_make_no_sense_are_refused(n_groups: int, tested: int, embargo: int) -> None:
    with pytest.raises(ValueError, match="combinatorial folds"):
        overfitting.combinatorial_purged(np.arange(40), n_groups, tested, embargo)


@pytest.mark.parametrize(
    ("bars", "embargo", "message"), [(3, 0, "do not fill"), (40, 40, "leave no bar")], ids=["few", "embargo"]
)
def test_too_few_bars_for_the_folds_are_refused(bars: int, embargo: int, message: str) -> None:
    with pytest.raises(NotEnoughBars, match=message):
        overfitting.combinatorial_purged(np.arange(bars), 4, 2, embargo)


def test_a_fold_needs_a_value_for_each_of_its_tested_rows() -> None:
    folds = overfitting.combinatorial_purged(np.arange(40), 4, 1, 0)
    with pytest.raises(ValueError, match="one value for each row"):
        overfitting.backtest_paths(folds, [np.zeros(9)] * 4)
