"""Operators: every child is a point of the space, and every distribution is the documented distribution."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.domain.evolution import Crossover
from clm_core.domain.search_space import Between, OneOf, SearchDimension, SearchSpace
from clm_core.domain.vocabulary import ModelType
from clm_core.evolution.genome import Genome, default_genome, is_inside, random_genome, step
from clm_core.evolution.operators import (
    CROSSOVERS,
    MUTATIONS,
    REACH,
    SELECTIONS,
    Cross,
    Mutate,
    Select,
    elite,
    roulette,
    roulette_shares,
    tournament,
)
from clm_core.models import catalog

SPACE: SearchSpace = {
    "depth": SearchDimension(Between(2, 6), whole=True, default=3),
    "leaves": SearchDimension(Between(4, 64, log=True), whole=True, default=8),
    "threshold": SearchDimension(Between(0.0, 0.06), whole=False, default=0.02),
    "edge": SearchDimension(Between(-1.0, 1.0), whole=False, default=0.0),
    "rate": SearchDimension(Between(0.005, 0.1, log=True), whole=False, default=0.02),
    "size": SearchDimension(OneOf((16, 32, 64)), whole=True, default=32),
    "loss": SearchDimension(OneOf(("mae", "mse")), whole=False, default="mae"),
}
MIDDLE: Genome = (4, 20, 0.03, 0.5, 0.02, 32, "mse")
"""A genome without a value at an end of its range."""
DRAWS = 6_000

seeds = st.integers(0, 2**32 - 1)
ratios = st.floats(-1e6, 1e6)
selects = pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
WITHOUT_MEANS = (Crossover.UNIFORM, Crossover.SINGLE_POINT)
crosses = pytest.mark.parametrize("cross", [CROSSOVERS[each] for each in WITHOUT_MEANS], ids=WITHOUT_MEANS)
mutates = pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces of up to six dimensions of any sort."""
    return {
        f"p{number}": draw(st.one_of(wholes, numbers, choices)) for number in range(draw(st.integers(1, 6)))
    }


def _whole(low: int, width: int, log: bool) -> SearchDimension:
    low = max(1, low) if log else low
    return SearchDimension(Between(low, low + width, log), whole=True, default=low)


def _number(low: float, width: float, log: bool) -> SearchDimension:
    low = abs(low) + 1e-4 if log else low
    return SearchDimension(Between(low, low + width, log), whole=False, default=low)


wholes = st.builds(_whole, st.integers(-50, 500), st.integers(0, 200), st.booleans())
numbers = st.builds(_number, st.floats(-10, 10), st.floats(1e-3, 1e3), st.booleans())
choices = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).map(
    lambda values: SearchDimension(OneOf(tuple(values)), whole=True, default=values[0])
)


def a_rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(spaces(), seeds)
def test_random_crossed_and_mutated_genomes_are_inside_their_space_and_of_the_right_type(
    space: SearchSpace, seed: int
) -> None:
    rng = a_rng(seed)
    one = random_genome(space, rng)
    other = random_genome(space, rng)
    assert is_inside(space, one)
    for cross in CROSSOVERS.values():
        for mutate in MUTATIONS.values():
            for _ in range(5):
                one = mutate(space, cross(space, one, other, rng), rng)
                assert is_inside(space, one), one


@pytest.mark.parametrize(
    "kind", [ModelType.XGBOOST, ModelType.LIGHTGBM, ModelType.NHITS, ModelType.PATCHTST, ModelType.RL_V3]
)
def test_the_defaults_of_our_model_types_are_points_of_their_spaces(kind: ModelType) -> None:
    space = catalog.search_space(kind)
    assert is_inside(space, default_genome(space))


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 7), (0, 3.0), (2, 0.07), (2, math.nan), (4, 0.001), (5, 48), (6, 16), (6, "huber")],
)
def test_a_genome_with_a_value_out_of_range_or_of_another_type_is_no_point_of_the_space(
    place: int, value: Any
) -> None:
    assert is_inside(SPACE, MIDDLE)
    assert not is_inside(SPACE, (*MIDDLE[:place], value, *MIDDLE[place + 1 :]))
    assert not is_inside(SPACE, MIDDLE[:-1])


def test_random_values_are_uniform_including_the_ends_of_a_range() -> None:
    rng = a_rng(1)
    genomes = [random_genome(SPACE, rng) for _ in range(DRAWS)]
    for place, values in ((0, range(2, 7)), (5, (16, 32, 64)), (6, ("mae", "mse"))):
        share = 1 / len(values)
        shares_drawn = [sum(genome[place] == value for genome in genomes) / DRAWS for value in values]
        assert shares_drawn == pytest.approx([share] * len(values), abs=0.025)
    # logarithmic scale: half of the values lie below the geometric mean
    assert np.mean([genome[4] < math.sqrt(0.005 * 0.1) for genome in genomes]) == pytest.approx(
        0.5, abs=0.025
    )  # type: ignore[operator]


@selects
@given(fitness=st.lists(ratios, min_size=1, max_size=12), seed=seeds)
def test_a_selected_parent_is_a_member_of_the_population_whatever_the_fitness(
    select: Select, fitness: list[float], seed: int
) -> None:
    genomes: list[Genome] = [(number,) for number in range(len(fitness))]
    assert select(genomes, fitness, a_rng(seed)) in genomes


@given(st.lists(ratios, min_size=1, max_size=12))
def test_the_probabilities_of_a_roulette_add_up_to_one_and_follow_the_fitness(fitness: list[float]) -> None:
    shares = roulette_shares(fitness)
    assert shares.sum() == pytest.approx(1.0)
    assert (shares > 0).all()
    assert (np.diff(shares[np.argsort(fitness)]) >= -1e-12).all()


@pytest.mark.parametrize(
    ("fitness", "shares"),
    [
        ([2.0, 2.0, 2.0, 2.0], [0.25] * 4),
        ([-1.0, -3.0], [1 / 1.1, 0.1 / 1.1]),
        ([-1.0, 0.0, 1.0], [0.1 / 1.65, 0.55 / 1.65, 1.0 / 1.65]),
    ],
    ids=["equal", "negative", "mixed"],
)
def test_a_roulette_selects_in_proportion_to_the_distance_to_the_worst(
    fitness: list[float], shares: list[float]
) -> None:
    assert roulette_shares(fitness) == pytest.approx(shares)
    rng = a_rng(2)
    genomes = [(number,) for number in range(len(fitness))]
    chosen = [roulette(genomes, fitness, rng) for _ in range(DRAWS)]
    shares_drawn = [chosen.count(genome) / DRAWS for genome in genomes]
    assert shares_drawn == pytest.approx(shares, abs=0.025)


def test_a_tournament_of_three_selects_the_best_of_ten_in_27_of_100_draws() -> None:
    fitness = [-5.0, -1.0, 0.0, 1.0, 9.0, -2.0, -3.0, 2.0, 3.0, 4.0]
    rng = a_rng(3)
    genomes = [(number,) for number in range(10)]
    chosen = [tournament(genomes, fitness, rng) for _ in range(DRAWS)]
    # 1 - 0.9^3, and the worst only where it is drawn three times
    assert chosen.count((4,)) / DRAWS == pytest.approx(0.271, abs=0.025)
    assert chosen.count((0,)) / DRAWS == pytest.approx(0.001, abs=0.002)


@pytest.mark.parametrize(("population", "count"), [(4, 1), (10, 1), (20, 2), (50, 5)])
def test_the_elite_is_the_best_tenth_best_first_with_ties_in_the_order_given(
    population: int, count: int
) -> None:
    genomes: list[Genome] = [(number,) for number in range(population)]
    fitness = [float(number % (population - 1)) for number in range(population)]
    kept = elite(genomes, fitness, population)
    assert kept == [(population - 2 - number,) for number in range(count)]
    assert elite(genomes, [0.0] * population, population) == genomes[:count]
    assert elite([], [], population) == []


@crosses
def test_a_child_has_each_gene_from_either_parent_and_half_from_each(cross: Cross) -> None:
    one = tuple(range(7))
    other = tuple(range(10, 17))
    rng = a_rng(4)
    children = [cross(SPACE, one, other, rng) for _ in range(DRAWS)]
    assert all(gene % 10 == place for child in children for place, gene in enumerate(child))  # type: ignore[operator]
    firsts = sum(gene < 10 for child in children for gene in child)  # type: ignore[operator,misc]
    assert firsts / (7 * DRAWS) == pytest.approx(0.5, abs=0.016)


def test_average_crossover_takes_means_of_numbers_and_choices_of_either_parent() -> None:
    one: Genome = (2, 4, 0.01, -1.0, 0.01, 16, "mae")
    other: Genome = (5, 31, 0.02, 0.5, 0.04, 64, "mse")
    rng = a_rng(5)
    children = [CROSSOVERS[Crossover.AVERAGE](SPACE, one, other, rng) for _ in range(200)]
    assert {child[:5] for child in children} == {(4, 18, 0.015, -0.25, 0.025)}
    assert {child[5:] for child in children} == {(16, "mae"), (16, "mse"), (64, "mae"), (64, "mse")}


def test_single_point_crossover_cuts_uniformly_and_takes_a_gene_from_each_parent() -> None:
    cross = CROSSOVERS[Crossover.SINGLE_POINT]
    rng = a_rng(5)
    cuts = [cross({}, (0,) * 5, (1,) * 5, rng) for _ in range(DRAWS)]
    possible = [(0,) * cut + (1,) * (5 - cut) for cut in (1, 2, 3, 4)]
    assert [cuts.count(cut) / DRAWS for cut in possible] == pytest.approx([0.25] * 4, abs=0.025)


@mutates
def test_a_tenth_of_the_genes_mutate_every_sort_of_gene_equally_often(mutate: Mutate) -> None:
    rng = a_rng(6)
    children = [mutate(SPACE, MIDDLE, rng) for _ in range(DRAWS)]
    for place, gene in enumerate(MIDDLE):
        assert np.mean([child[place] != gene for child in children]) == pytest.approx(0.1, abs=0.016), place


@mutates
def test_a_number_changes_by_up_to_a_fifth_or_by_a_step_in_both_directions(mutate: Mutate) -> None:
    rng = a_rng(7)
    children = [mutate(SPACE, MIDDLE, rng) for _ in range(DRAWS)]
    for place, tuned in enumerate(SPACE.values()):
        if isinstance(tuned.values, Between):
            before = float(MIDDLE[place])
            changes = np.array([float(child[place]) - before for child in children])
            reach = max(REACH * before, step(tuned))
            assert np.abs(changes).max() <= reach + 1e-3 * before
            assert np.abs(changes).max() > 0.9 * reach
            assert (changes > 0).sum() == pytest.approx((changes < 0).sum(), rel=0.25)


def test_small_changes_are_more_likely_under_the_gaussian_mutation_only() -> None:
    rng = a_rng(8)
    space = {f"rate{number}": SPACE["rate"] for number in range(20)}
    small = {}
    for name, mutate in MUTATIONS.items():
        genes = np.array([mutate(space, (0.02,) * 20, rng) for _ in range(DRAWS // 4)], float)
        changes = np.abs(genes[genes != 0.02] - 0.02)
        small[name.value] = float(np.mean(changes < 0.002))
    # half of the reach is one standard deviation
    assert small == pytest.approx({"gaussian": 0.683, "uniform": 0.5}, abs=0.04)


@pytest.mark.parametrize("value", [0.0, 0.06])
def test_a_number_can_leave_zero_and_the_end_of_its_range(value: float) -> None:
    space: SearchSpace = {"threshold": SPACE["threshold"]}
    rng = a_rng(9)
    children = {MUTATIONS["uniform"](space, (value,), rng) for _ in range(200)}  # type: ignore[index]
    assert len(children) > 2
