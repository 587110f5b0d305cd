"""Jump models find the sequence and the centroids that a search over all sequences finds."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.market import jump_model
from clm_core.market.bars import Floats


def sequences(n_rows: int, n_states: int) -> np.ndarray:
    return np.array(list(product(range(n_states), repeat=n_rows)))


def objectives(losses: Floats, penalty: float) -> tuple[np.ndarray, Floats]:
    """All sequences and the objective of each."""
    every = sequences(*losses.shape)
    changes = np.count_nonzero(np.diff(every, axis=1), axis=1)
    return every, losses[np.arange(len(losses)), every].sum(axis=1) + penalty * changes


@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from([(1, 2), (2, 2), (14, 2), (9, 3), (6, 4)]),
    penalty=st.sampled_from([0.0, 0.3, 1.0, 50.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_dynamic_programme_finds_the_best_of_all_sequences(
    shape: tuple[int, int], penalty: float, seed: int
) -> None:
    losses = np.random.default_rng(seed).exponential(size=shape)
    every, values = objectives(losses, penalty)
    states, lowest = jump_model.optimal_states(losses, penalty)
    assert lowest == pytest.approx(values.min(), rel=1e-12)
    assert states.tolist() == every[values.argmin()].tolist()


def test_the_label_online_ends_the_best_sequence_of_the_rows_so_far() -> None:
    losses = np.random.default_rng(5).exponential(size=(12, 2))
    online = jump_model.forward_losses(losses, 0.8).argmin(axis=1)
    for row in range(12):
        every, values = objectives(losses[: row + 1], 0.8)
        assert online[row] == every[values.argmin(), -1]


@pytest.mark.parametrize("penalty", [0.0, 0.5, 2.0])
def test_the_fit_finds_the_best_sequence_with_its_own_means(penalty: float) -> None:
    rng = np.random.default_rng(11)
    values = rng.standard_normal((11, 2)) + 2.0 * (np.arange(11) // 4 % 2)[:, None]
    lowest = np.inf
    for states in sequences(11, 2):
        total = penalty * np.count_nonzero(np.diff(states))
        for state in set(states.tolist()):
            rows = values[states == state]
            total += 0.5 * np.square(rows - rows.mean(axis=0)).sum()
        lowest = min(lowest, total)
    fitted = jump_model.fit(values, rng.random((40, 2)), penalty)
    assert fitted.objective == pytest.approx(lowest, rel=1e-12)
    for state in range(2):
        rows = values[fitted.states == state]
        assert fitted.centroids[state] == pytest.approx(rows.mean(axis=0))


def test_a_state_without_a_row_has_no_centroid_and_is_out_of_reach() -> None:
    values = np.random.default_rng(1).standard_normal((30, 1)) * 0.1
    fitted = jump_model.fit(values, np.array([[0.2, 0.9]]), penalty=1e3)
    absent = 1 - int(fitted.states[0])
    assert np.isnan(fitted.centroids[absent]).all()
    assert np.isinf(jump_model.losses_of(values, fitted.centroids)[:, absent]).all()


def test_a_start_of_its_own_takes_part() -> None:
    values = np.repeat([[0.0], [1.0]], 20, axis=0)
    fitted = jump_model.fit(values, np.empty((0, 2)), 0.1, start=np.array([[0.9], [0.1]]))
    assert fitted.centroids.tolist() == [[1.0], [0.0]]
    with pytest.raises(ValueError, match="at least one start"):
        jump_model.fit(values, np.empty((0, 2)), 0.1)


@pytest.mark.parametrize(
    ("centroids", "expected"),
    [
        pytest.param([[5.0, 5.2], [1.0, 1.1]], [[1.0, 1.1], [5.0, 5.2]], id="swapped"),
        pytest.param([[1.0, 1.1], [5.0, 5.2]], [[1.0, 1.1], [5.0, 5.2]], id="in place"),
        pytest.param([[4.0, 4.0], [np.nan, np.nan]], [[0.0, 0.0], [4.0, 4.0]], id="one state absent"),
    ],
)
def test_states_are_matched_with_the_nearest_former_ones(
    centroids: list[list[float]], expected: list[list[float]]
) -> None:
    former = np.array([[0.0, 0.0], [6.0, 6.0]])
    assert jump_model.matched(np.array(centroids), former).tolist() == expected
