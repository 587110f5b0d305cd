"""Pareto ranks, crowding distance, survival and hypervolume: by hand, and against pymoo."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymoo.indicators.hv import HV
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from clm_core.evolution.pareto import crowding_distances, hypervolume, pareto_ranks, standings, survivors
from clm_core.market.bars import Floats

NAN = float("nan")
INF = float("inf")

coarse = st.integers(1, 5).flatmap(
    lambda m: arrays(np.float64, st.tuples(st.integers(1, 40), st.just(m)), elements=st.integers(0, 6))
)
"""Scores with many ties, 1 to 5 objectives."""


@pytest.mark.parametrize(
    ("scores", "ranks"),
    [
        ([[1, 5], [3, 4], [5, 1], [1, 4], [2, 3], [1, 3]], [0, 0, 0, 1, 1, 2]),
        ([[3, 4], [3, 4], [3, 3]], [0, 0, 1]),
        ([[2], [7], [7], [-1]], [1, 0, 0, 2]),
        ([[1, 2, 3], [3, 2, 1], [1, 1, 1], [2, 2, 2]], [0, 0, 1, 0]),
        ([[1, 1], [NAN, 9], [0, 0], [INF, 0]], [0, 2, 1, 2]),
        ([[NAN, 1], [NAN, 2]], [0, 0]),
    ],
    ids=["three fronts", "equal rows", "one objective", "three objectives", "unmeasured", "none measured"],
)
def test_a_row_has_the_rank_of_its_front_and_unmeasured_rows_the_last(
    scores: list[list[float]], ranks: list[int]
) -> None:
    assert pareto_ranks(np.array(scores, float)).tolist() == ranks


def test_no_rows_have_no_ranks() -> None:
    assert pareto_ranks(np.empty((0, 2))).tolist() == []
    assert hypervolume(np.empty((0, 2)), np.zeros(2)) == 0.0


@given(coarse)
@settings(deadline=None)
def test_ranks_are_those_of_pymoo_which_minimises(scores: Floats) -> None:
    _, ranks = NonDominatedSorting().do(-scores, return_rank=True)
    assert pareto_ranks(scores).tolist() == ranks.tolist()


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_ranks_and_crowding_of_random_points_are_those_of_pymoo(objectives: int) -> None:
    scores = np.random.default_rng(objectives).normal(size=(300, objectives))
    fronts = NonDominatedSorting().do(-scores)
    ranks = pareto_ranks(scores)
    crowding = crowding_distances(scores, ranks)
    for rank, front in enumerate(fronts):
        assert sorted(front) == np.flatnonzero(ranks == rank).tolist()
        expected = calc_crowding_distance(scores[front]) if len(front) > 2 else INF
        assert crowding[front] == pytest.approx(expected)


def test_crowding_is_the_mean_distance_of_the_neighbours_as_a_share_of_the_range() -> None:
    scores = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 2.0], [10.0, 0.0], [0.0, 0.0]])
    # second: (4 - 0) / 10 and (10 - 2) / 10; third: (10 - 1) / 10 and (6 - 0) / 10
    assert crowding_distances(scores, pareto_ranks(scores)) == pytest.approx([INF, 0.6, 0.75, INF, INF])


def test_an_objective_without_range_and_an_unmeasured_row_have_no_crowding_distance() -> None:
    scores = np.array([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0], [NAN, 1.0]])
    crowding = crowding_distances(scores, np.zeros(4, np.int64))
    assert crowding == pytest.approx([INF, 0.5, INF, 0.0])


@pytest.mark.parametrize(
    ("count", "kept"),
    [(6, [0, 1, 2, 3, 4, 5]), (5, [0, 1, 2, 3, 4]), (4, [0, 1, 3, 4]), (3, [0, 3, 4]), (2, [0, 4])],
)
def test_the_most_crowded_row_of_the_last_front_is_removed_time_and_again(
    count: int, kept: list[int]
) -> None:
    # (5, 5) is removed first, with 0.31; then the distances are 0.51 for (2, 8), 0.8 for (5.1, 4.9)
    scores = np.array([[0.0, 10.0], [2.0, 8.0], [5.0, 5.0], [5.1, 4.9], [10.0, 0.0], [0.0, 0.0]])
    assert survivors(scores, pareto_ranks(scores), count).tolist() == kept


def test_unmeasured_rows_survive_only_where_there_is_room() -> None:
    scores = np.array([[NAN], [1.0], [2.0], [NAN], [NAN]])
    assert survivors(scores, pareto_ranks(scores), 3).tolist() == [2, 1, 0]


def test_a_standing_follows_the_rank_and_then_the_crowding_distance_with_ties() -> None:
    ranks = np.array([1, 0, 0, 0, 1, 0])
    crowding = np.array([INF, 0.5, INF, 0.5, 0.1, INF])
    assert standings(ranks, crowding).tolist() == [1, 2, 3, 2, 0, 3]


@pytest.mark.parametrize(
    ("scores", "volume"),
    [
        ([[1, 3], [2, 2], [3, 1]], 6.0),
        ([[1, 3], [2, 2], [3, 1], [1, 1], [2, 2]], 6.0),
        ([[2, 1, 1], [1, 2, 1], [1, 1, 2]], 4.0),
        ([[2, 3, 5, 7]], 210.0),
        ([[4], [9]], 9.0),
        ([[5, -1], [-1, 5], [NAN, 3]], 0.0),
    ],
    ids=["stairs", "dominated rows", "three boxes", "one box", "one objective", "below the reference"],
)
def test_the_hypervolume_of_boxes_is_the_volume_of_their_union(
    scores: list[list[float]], volume: float
) -> None:
    assert hypervolume(np.array(scores, float), np.zeros(len(scores[0]))) == pytest.approx(volume)


@given(coarse)
@settings(deadline=None)
def test_the_hypervolume_is_that_of_pymoo_which_minimises(scores: Floats) -> None:
    reference = np.full(scores.shape[1], -0.5)
    assert hypervolume(scores, reference) == pytest.approx(HV(ref_point=-reference)(-scores))
