"""Levels of the shadows of a year."""

import math

import pytest

from clm_core.evidence.alpha_spending import share


def test_the_shares_of_all_ranks_sum_to_one() -> None:
    counted = 100_000
    # sum of 1 / k ** 2 beyond n is below 1 / n
    assert sum(map(share, range(1, counted))) == pytest.approx(1.0, abs=0.005 * 6 / math.pi**2 / counted * 2)
    assert sum(map(share, range(1, counted))) < 1.0


@pytest.mark.parametrize(
    ("rank", "expected"), [(1, 0.645), (2, 0.35 / 51), (52, 0.35 / 51), (53, 0.03 / math.pi**2)]
)
def test_the_first_shadow_has_most_and_a_weekly_one_its_equal_share(rank: int, expected: float) -> None:
    assert share(rank) == pytest.approx(expected)


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="ranks count from 1"):
        share(0)
