"""Operators over whole populations: tables worked by hand, shares of draws, and bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.domain.search_space import Between, OneOf, SearchDimension, SearchSpace
from clm_core.evolution.genes import Genes
from clm_core.evolution.genome import default_genome, is_inside, nearest
from clm_core.evolution.variation import (
    CrossRows,
    MutateRows,
    cross_at_single_point,
    cross_by_average,
    cross_by_sbx,
    cross_uniformly,
    mutate_normally,
    mutate_polynomially,
    mutate_uniformly,
    polynomial_change,
    sbx_spread,
    select_by_roulette,
    select_by_tournament,
)

SPACE: SearchSpace = {
    "look_back": SearchDimension(Between(5, 240, log=True), whole=True, default=20),
    "depth": SearchDimension(Between(2, 6), whole=True, default=3),
    "threshold": SearchDimension(Between(0.0, 0.06), whole=False, default=0.02),
    "edge": SearchDimension(Between(-1.0, 1.0), whole=False, default=0.0),
    "rate": SearchDimension(Between(0.005, 0.1, log=True), whole=False, default=0.02),
    "size": SearchDimension(OneOf((16, 32, 64)), whole=True, default=32),
}
GENES = Genes.of(SPACE)
MIDDLE = (50, 4, 0.03, 0.5, 0.02, 32)
UNIT = Genes.between(np.zeros(3), np.ones(3))
ROWS = 6_000
MUTATIONS = (mutate_normally, mutate_uniformly, mutate_polynomially)
CROSSOVERS = (cross_at_single_point, cross_uniformly, cross_by_average, cross_by_sbx)

seeds = st.integers(0, 2**32 - 1)


def a_rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_genes_are_genomes_with_the_types_of_the_space_and_back() -> None:
    genomes = [default_genome(SPACE), MIDDLE, (240, 6, 0.06, -1.0, 0.1, 64)]
    rows = GENES.rows(SPACE, genomes)
    assert rows[0].tolist() == [20.0, 3.0, 0.02, 0.0, 0.02, 1.0]
    assert GENES.genomes(SPACE, rows) == genomes
    assert all(is_inside(SPACE, genome) for genome in GENES.genomes(SPACE, rows))
    assert GENES.rows(SPACE, []).shape == (0, 6)


@given(st.floats(-1e3, 1e3), st.sampled_from([name for name in SPACE if name != "size"]))
def test_the_nearest_value_is_that_of_a_single_genome(number: float, name: str) -> None:
    place = list(SPACE).index(name)
    rows = np.full((1, len(SPACE)), number)
    # decimals halfway between two of four digits may be rounded either way
    assert GENES.nearest(rows)[0, place] == pytest.approx(nearest(SPACE[name], number), rel=2e-4)


def test_a_number_is_the_float_that_a_person_gets_who_types_its_four_digits() -> None:
    values = 10.0 ** a_rng(1).uniform(-8, 8, (ROWS, 1))
    genes = Genes.of({"x": SearchDimension(Between(1e-9, 1e9), whole=False, default=1.0)})
    typed = [[float(f"{value:.4g}")] for value in values[:, 0]]
    assert (genes.nearest(values) == typed).mean() > 0.999


@given(seeds)
@settings(deadline=None, max_examples=20)
@pytest.mark.parametrize("cross", CROSSOVERS)
@pytest.mark.parametrize("mutate", MUTATIONS)
def test_every_child_of_random_parents_is_a_genome_inside_the_space(
    cross: CrossRows, mutate: MutateRows, seed: int
) -> None:
    rng = a_rng(seed)
    one = GENES.random(40, rng)
    other = GENES.random(40, rng)
    children = GENES.nearest(mutate(GENES, cross(GENES, one, other, rng), rng))
    assert all(is_inside(SPACE, genome) for genome in GENES.genomes(SPACE, children))


def test_random_candidates_cover_the_ends_and_are_uniform_in_the_logarithm() -> None:
    rows = GENES.random(ROWS, a_rng(2))
    assert [float(np.mean(rows[:, 1] == each)) for each in (2, 3, 4, 5, 6)] == pytest.approx(
        [0.2] * 5, abs=0.025
    )
    assert [float(np.mean(rows[:, 5] == each)) for each in (0, 1, 2)] == pytest.approx([1 / 3] * 3, abs=0.025)
    assert np.mean(rows[:, 4] < (0.005 * 0.1) ** 0.5) == pytest.approx(0.5, abs=0.025)


def test_a_tournament_of_two_selects_by_standing_and_breaks_ties_at_random() -> None:
    drawn = select_by_tournament(np.array([0, 5, 1, 5]), 4 * ROWS, a_rng(3))
    shares = np.bincount(drawn, minlength=4) / (4 * ROWS)
    # the worst only where it is drawn twice; the best pair share the rest
    assert shares == pytest.approx([1 / 16, 6 / 16, 3 / 16, 6 / 16], abs=0.015)


def test_a_roulette_gives_the_worst_a_tenth_of_the_share_of_the_best() -> None:
    drawn = select_by_roulette(np.array([0, 1, 2]), 4 * ROWS, a_rng(4))
    shares = np.bincount(drawn, minlength=3) / (4 * ROWS)
    assert shares == pytest.approx([0.1 / 1.65, 0.55 / 1.65, 1.0 / 1.65], abs=0.015)


def test_a_single_point_crossover_takes_the_first_genes_of_one_parent() -> None:
    genes = Genes.between(np.zeros(4), np.ones(4))
    children = cross_at_single_point(genes, np.zeros((ROWS, 4)), np.ones((ROWS, 4)), a_rng(5))
    rows, counts = np.unique(children, axis=0, return_counts=True)
    assert rows.tolist() == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    assert counts / ROWS == pytest.approx([1 / 3] * 3, abs=0.025)


def test_a_uniform_crossover_takes_each_gene_from_either_parent() -> None:
    children = cross_uniformly(UNIT, np.zeros((ROWS, 3)), np.ones((ROWS, 3)), a_rng(6))
    _, counts = np.unique(children, axis=0, return_counts=True)
    assert counts / ROWS == pytest.approx([1 / 8] * 8, abs=0.02)


def test_an_average_crossover_is_the_mean_of_the_numbers_and_a_choice_of_either_parent() -> None:
    one = GENES.rows(SPACE, [(10, 2, 0.01, -0.5, 0.01, 16)] * ROWS)
    other = GENES.rows(SPACE, [(30, 5, 0.05, 0.1, 0.02, 64)] * ROWS)
    children = GENES.nearest(cross_by_average(GENES, one, other, a_rng(7)))
    assert children[:, :5] == pytest.approx(np.tile([20, 4, 0.03, -0.2, 0.015], (ROWS, 1)))
    assert [float(np.mean(children[:, 5] == each)) for each in (0, 1, 2)] == pytest.approx(
        [0.5, 0, 0.5], abs=0.025
    )


@pytest.mark.parametrize(
    ("draw", "reach", "spread"),
    [
        # without a bound in reach: (2u)^(1/16), and (1 / (2 - 2u))^(1/16)
        (0.25, 1e9, 0.5 ** (1 / 16)),
        (0.5, 1e9, 1.0),
        (0.75, 1e9, 2.0 ** (1 / 16)),
        # at the bound itself a child stays between the parents
        (0.999999999, 1.0, 1.0),
        (0.0, 1.0, 0.0),
    ],
)
def test_the_spread_of_sbx_is_that_of_the_formula(draw: float, reach: float, spread: float) -> None:
    assert sbx_spread(np.array([draw]), np.array([reach]), 15.0) == pytest.approx([spread])


def test_sbx_changes_half_of_the_genes_around_both_parents_and_stays_inside() -> None:
    one = np.full((ROWS, 3), 0.2)
    other = np.full((ROWS, 3), 0.6)
    children = cross_by_sbx(UNIT, one, other, a_rng(8))
    assert np.mean(children == one) == pytest.approx(0.5, abs=0.02)
    changed = children[children != 0.2]
    assert np.mean(changed < 0.4) == pytest.approx(0.5, abs=0.02)
    assert changed.mean() == pytest.approx(0.4, abs=0.01)
    assert children.min() >= 0.0
    assert children.max() <= 1.0
    assert (cross_by_sbx(UNIT, one, one, a_rng(9)) == one).all()


@pytest.mark.parametrize(
    ("draw", "below", "above", "change"),
    [
        (0.5, 0.5, 0.5, 0.0),
        (0.0, 1.0, 0.0, -1.0),
        (0.0, 0.0, 1.0, 0.0),
        (0.25, 1.0, 0.0, 0.5 ** (1 / 21) - 1.0),
        (0.75, 0.0, 1.0, 1.0 - 0.5 ** (1 / 21)),
        (1.0, 0.0, 1.0, 1.0),
    ],
)
def test_the_polynomial_change_is_that_of_the_formula(
    draw: float, below: float, above: float, change: float
) -> None:
    measured = polynomial_change(np.array([draw]), np.array([below]), np.array([above]), 20.0)
    assert measured == pytest.approx([change])


def test_a_polynomial_mutation_changes_one_gene_of_a_row_on_average() -> None:
    rows = np.full((ROWS, 3), 0.5)
    assert (mutate_polynomially(UNIT, rows, a_rng(10)) != rows).sum(axis=1).mean() == pytest.approx(
        1, abs=0.04
    )


@pytest.mark.parametrize("mutate", [mutate_normally, mutate_uniformly])
def test_a_tenth_of_the_genes_mutate_by_up_to_a_fifth_or_a_step(mutate: MutateRows) -> None:
    before = GENES.rows(SPACE, [MIDDLE] * ROWS)
    after = GENES.nearest(mutate(GENES, before, a_rng(11)))
    assert (after != before).mean(axis=0) == pytest.approx([0.1] * 6, abs=0.016)
    largest = np.abs(after - before)[:, :5].max(axis=0)
    # a fifth of 50, a step of 1, a fifth of 0.03, a fifth of 0.5, a fifth of 0.02
    assert largest == pytest.approx([10, 1, 0.006, 0.1, 0.004], rel=0.05)


def test_small_changes_are_more_likely_under_the_gaussian_mutation_only() -> None:
    rows = np.full((4 * ROWS, 3), 0.5)
    shares = []
    for mutate in (mutate_normally, mutate_uniformly):
        changes = np.abs(mutate(UNIT, rows, a_rng(12)) - rows)
        shares.append(float(np.mean(changes[changes > 0] < 0.05)))
    assert shares == pytest.approx([0.683, 0.5], abs=0.02)


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_a_mutated_choice_is_another_choice_each_equally_often(mutate: MutateRows) -> None:
    before = GENES.rows(SPACE, [MIDDLE] * 4 * ROWS)
    after = mutate(GENES, before, a_rng(13))[:, 5]
    counts = np.bincount(after.astype(int), minlength=3)
    assert counts[0] == pytest.approx(counts[2], rel=0.15)
    assert counts[1] < len(after)
