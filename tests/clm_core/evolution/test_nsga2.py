"""NSGA-II over problems with a known front."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.zdt import PROBLEMS
from clm_core.domain.search_space import Between, OneOf, SearchDimension, SearchSpace
from clm_core.evolution.genes import Genes
from clm_core.evolution.nsga2 import SearchGeneration, SearchRules, search
from clm_core.evolution.pareto import hypervolume, pareto_ranks, survivors
from clm_core.evolution.variation import (
    CrossRows,
    MutateRows,
    SelectRows,
    cross_at_single_point,
    cross_by_average,
    cross_by_sbx,
    cross_uniformly,
    mutate_normally,
    mutate_polynomially,
    mutate_uniformly,
    select_by_roulette,
    select_by_tournament,
)
from clm_core.market.bars import Floats

SPACE: SearchSpace = {
    "look_back": SearchDimension(Between(5, 240, log=True), whole=True, default=20),
    "threshold": SearchDimension(Between(0.0, 0.1), whole=False, default=0.02),
    "stop": SearchDimension(Between(0.01, 0.1, log=True), whole=False, default=0.03),
    "size": SearchDimension(OneOf((16, 32, 64)), whole=True, default=32),
}
GENES = Genes.of(SPACE)
RULES = SearchRules(population=40, generations=15, seed=3)


def conflicting(rows: Floats) -> Floats:
    """Three objectives: a look-back of 100 against one of 20, a small stop, and the second choice."""
    look_back, threshold, stop, size = rows.T
    off = np.abs(threshold - 0.07) + 0.05 * (size != 1)
    return -np.column_stack([(look_back / 100 - 1) ** 2 + off, (look_back / 20 - 1) ** 2 + off, stop])


def run(objectives: Callable[[Floats], Floats], rules: SearchRules = RULES) -> list[SearchGeneration]:
    return list(search(GENES, rules, objectives))


def same(one: list[SearchGeneration], other: list[SearchGeneration]) -> bool:
    return all(
        a.genes.tobytes() == b.genes.tobytes()
        and a.new_genes.tobytes() == b.new_genes.tobytes()
        and a.scores.tobytes() == b.scores.tobytes()
        and a.hypervolume == b.hypervolume
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_same_seed_finds_the_same_for_any_number_of_workers(workers: int) -> None:
    def divided(rows: Floats) -> Floats:
        with ThreadPoolExecutor(workers) as pool:
            return np.concatenate(list(pool.map(conflicting, np.array_split(rows, workers))))

    assert same(run(divided), run(conflicting))
    assert not same(run(divided, replace(RULES, seed=4)), run(conflicting))


def test_a_search_cut_short_is_the_beginning_of_the_longer_one() -> None:
    assert same(run(conflicting, replace(RULES, generations=5)), run(conflicting)[:6])


def test_no_candidate_is_measured_twice_and_the_front_never_gets_worse() -> None:
    generations = run(conflicting)
    every = np.concatenate([each.new_genes for each in generations])
    assert len(np.unique(every, axis=0)) == len(every) == 40 * 16
    volumes = [each.hypervolume for each in generations]
    assert volumes[-1] > volumes[0]
    # pruning a front larger than the population may cost a little
    assert (np.diff(volumes) > -0.01 * volumes[-1]).all()
    for each in generations:
        assert len(each.genes) == 40
        assert each.scores.tobytes() == conflicting(each.genes).tobytes()
        assert each.ranks.tolist() == pareto_ranks(each.scores).tolist()
        assert each.hypervolume == hypervolume(each.scores, np.array(generations[0].reference))


@pytest.mark.parametrize("select", [select_by_tournament, select_by_roulette])
@pytest.mark.parametrize("cross", [cross_at_single_point, cross_uniformly, cross_by_average, cross_by_sbx])
@pytest.mark.parametrize("mutate", [mutate_normally, mutate_uniformly, mutate_polynomially])
def test_every_combination_of_operators_beats_as_many_random_candidates(
    select: SelectRows, cross: CrossRows, mutate: MutateRows
) -> None:
    reference = np.full(3, -1.5)
    evolved = 0.0
    random = 0.0
    for seed in range(3):
        rules = replace(
            RULES, seed=seed, reference=tuple(reference), select=select, cross=cross, mutate=mutate
        )
        drawn = conflicting(GENES.random(40 * 16, np.random.default_rng(seed)))
        drawn = drawn[survivors(drawn, pareto_ranks(drawn), 40)]
        evolved += run(conflicting, rules)[-1].hypervolume
        random += hypervolume(drawn, reference)
    assert evolved > random


def test_founders_are_measured_first_and_random_candidates_fill_generation_0() -> None:
    founders = GENES.rows(SPACE, [(20, 0.02, 0.03, 32), (100, 0.07, 0.01, 64)])
    first = next(search(GENES, RULES, conflicting, np.concatenate([founders, founders])))
    assert first.new_genes[:2].tolist() == founders.tolist()
    assert len(first.new_genes) == 40


def test_a_space_with_fewer_points_than_candidates_is_measured_completely() -> None:
    space: SearchSpace = {"size": SPACE["size"], "n": SearchDimension(Between(1, 4), whole=True, default=1)}
    generations = list(search(Genes.of(space), RULES, lambda rows: rows[:, :2] * (1.0, -1.0)))
    assert sorted(map(tuple, np.concatenate([each.new_genes for each in generations]))) == [
        (size, n) for size in (0.0, 1.0, 2.0) for n in (1.0, 2.0, 3.0, 4.0)
    ]
    assert generations[-1].scores[generations[-1].front].tolist() == [[2.0, -1.0]]


def test_unmeasured_candidates_are_on_no_front_and_leave_once_there_are_others() -> None:
    def partly(rows: Floats) -> Floats:
        return np.where(rows[:, :1] < 60, np.nan, conflicting(rows))

    generations = run(partly)
    assert np.isnan(generations[0].scores).any()
    assert np.isfinite(generations[-1].scores).all()
    nothing = run(lambda rows: np.full((len(rows), 2), np.nan), replace(RULES, generations=2))
    assert [len(each.front) for each in nothing] == [0, 0, 0]
    assert nothing[-1].hypervolume == 0.0


def test_scores_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="give a row of scores for each of 40 candidates"):
        run(lambda rows: rows[:, 0])


def test_zdt3_is_solved_to_within_1_5_percent_after_120_generations() -> None:
    problem = PROBLEMS["zdt3"]
    last = problem.generations(1, 100, 120)[-1]
    assert 0.985 * problem.exact < last.hypervolume < problem.exact
