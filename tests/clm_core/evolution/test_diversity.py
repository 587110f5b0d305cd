"""Choice of strategies with different returns."""

import numpy as np

from clm_core.evolution.diversity import MAX_CORRELATION, decorrelated

RNG = np.random.default_rng(5)
FIRST, SECOND, THIRD = RNG.normal(0.0, 0.01, (3, 500))


def test_a_close_relative_of_a_better_strategy_is_passed_over() -> None:
    relative = FIRST + 0.001 * RNG.normal(0.0, 0.01, 500)
    daily = np.array([FIRST, relative, SECOND, THIRD], np.float32)
    assert np.corrcoef(FIRST, relative)[0, 1] > MAX_CORRELATION
    assert decorrelated(daily, [0.9, 0.89, 0.5, 0.7], 3) == [0, 3, 2]


def test_the_least_alike_is_chosen_where_only_relatives_are_left() -> None:
    close, closer = (FIRST + share * SECOND for share in (0.5, 0.1))
    daily = np.array([closer, FIRST, close], np.float32)
    assert decorrelated(daily, [0.8, 0.9, 0.1], 3) == [1, 2, 0]


def test_copies_and_strategies_without_returns_are_left_out() -> None:
    daily = np.array([FIRST, FIRST, np.zeros(500), SECOND], np.float32)
    assert decorrelated(daily, [0.9, 0.8, 0.99, 0.1], 4) == [0, 3]
    assert decorrelated(np.zeros((3, 50), np.float32), [0.1, 0.2, 0.3], 2) == []
