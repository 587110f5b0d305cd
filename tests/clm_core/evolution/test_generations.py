"""Evolution over planted landscapes: the fitness is a known function of the genome."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from clm_core.domain.evolution import Crossover, Mutation, Selection
from clm_core.domain.search_space import Between, OneOf, SearchDimension, SearchSpace
from clm_core.domain.vocabulary import CandidateOrigin
from clm_core.evolution.generations import Population, Proposal, Rules, evolve
from clm_core.evolution.genome import Genome, default_genome, is_inside

SPACE: SearchSpace = {
    "depth": SearchDimension(Between(2, 12), whole=True, default=3),
    "rate": SearchDimension(Between(0.001, 1.0, log=True), whole=False, default=0.01),
    "threshold": SearchDimension(Between(0.0, 1.0), whole=False, default=0.1),
    "edge": SearchDimension(Between(-2.0, 2.0), whole=False, default=-1.0),
    "size": SearchDimension(OneOf((16, 32, 64)), whole=True, default=16),
}
RULES = Rules(20, 10, Selection.TOURNAMENT, Crossover.UNIFORM, Mutation.GAUSSIAN, seed=0)


def height(genome: Genome) -> float:
    """A hill whose top, 0, lies at (9, 0.1, 0.7, 0.5, 64)."""
    depth, rate, threshold, edge, size = map(float, genome)
    away = ((depth - 9) / 10, math.log10(rate / 0.1) / 3, threshold - 0.7, (edge - 0.5) / 4)
    return -sum(each**2 for each in away) - (0.0 if size == 64 else 0.1)


@dataclass
class Landscape:
    """Objective that measures by `height`, not at all below `sea`, and remembers every call."""

    sea: float = -math.inf
    calls: list[tuple[int, Proposal]] = field(default_factory=list)

    def __call__(self, number: int, proposals: Sequence[Proposal]) -> list[float | None]:
        self.calls += [(number, proposal) for proposal in proposals]
        heights = [height(proposal.genome) for proposal in proposals]
        return [each if each >= self.sea else math.nan for each in heights]


def bests(populations: Sequence[Population]) -> list[float]:
    fitness = [population.members[0].fitness for population in populations]
    return [-math.inf if each is None else each for each in fitness]


@pytest.mark.parametrize("selection", Selection)
@pytest.mark.parametrize("crossover", Crossover)
@pytest.mark.parametrize("mutation", Mutation)
def test_the_last_generation_is_far_better_than_the_first_for_nine_of_ten_seeds(
    selection: Selection, crossover: Crossover, mutation: Mutation
) -> None:
    better = 0
    for seed in range(10):
        rules = replace(RULES, selection=selection, crossover=crossover, mutation=mutation, seed=seed)
        best_by_generation = bests(list(evolve(SPACE, rules, Landscape())))
        assert best_by_generation == sorted(best_by_generation), "the best is kept"
        better += best_by_generation[-1] > best_by_generation[0] / 2
    assert better >= 9


def test_generation_0_holds_the_defaults_and_random_genomes_and_later_proposals_have_parents() -> None:
    landscape = Landscape()
    populations = list(evolve(SPACE, RULES, landscape))
    assert [population.number for population in populations] == list(range(11))
    founders = [proposal for number, proposal in landscape.calls if number == 0]
    assert founders[0] == Proposal(default_genome(SPACE), CandidateOrigin.MANUAL)
    assert [each.origin for each in founders[1:]] == [CandidateOrigin.RANDOM] * 19
    children = [proposal for number, proposal in landscape.calls if number > 0]
    parent_counts = {CandidateOrigin.RANDOM: 0, CandidateOrigin.MUTATION: 1, CandidateOrigin.CROSSOVER: 2}
    assert all(len(set(child.parents)) == parent_counts[child.origin] for child in children)
    origins = [child.origin for child in children]
    assert min(map(origins.count, (CandidateOrigin.MUTATION, CandidateOrigin.CROSSOVER))) > 50


def test_a_parent_is_a_member_of_the_generation_before_and_no_genome_is_measured_twice() -> None:
    landscape = Landscape()
    populations = list(evolve(SPACE, RULES, landscape))
    genomes = [proposal.genome for _, proposal in landscape.calls]
    assert len(genomes) == len(set(genomes)) == sum(population.new for population in populations)
    assert all(is_inside(SPACE, genome) for genome in genomes)
    for number, proposal in landscape.calls:
        if proposal.parents:
            assert set(proposal.parents) <= {member.genome for member in populations[number - 1].members}


def test_a_genome_without_measurement_ranks_last_and_has_no_children() -> None:
    landscape = Landscape(sea=-0.4)
    populations = list(evolve(SPACE, RULES, landscape))
    sunk = {proposal.genome for _, proposal in landscape.calls if height(proposal.genome) < -0.4}
    assert len(sunk) > 10
    assert not any(sunk & set(proposal.parents) for _, proposal in landscape.calls)
    for population in populations:
        measured = [member.fitness is not None for member in population.members]
        assert measured == sorted(measured, reverse=True)
        assert all((member.fitness is None) == (member.genome in sunk) for member in population.members)


def test_proposals_are_random_while_no_genome_can_be_measured() -> None:
    landscape = Landscape(sea=1.0)
    populations = list(evolve(SPACE, RULES, landscape))
    assert all(member.fitness is None for member in populations[-1].members)
    assert {proposal.origin for number, proposal in landscape.calls if number} == {CandidateOrigin.RANDOM}


def test_the_same_seed_breeds_the_same_genomes_and_another_seed_other_genomes() -> None:
    runs = [list(evolve(SPACE, replace(RULES, seed=seed), Landscape())) for seed in (5, 5, 6)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_longer_evolution_begins_with_the_same_generations() -> None:
    few = list(evolve(SPACE, replace(RULES, generations=3), Landscape()))
    many = list(evolve(SPACE, replace(RULES, generations=6), Landscape()))
    assert many[:4] == few


def test_an_evolution_of_an_exhausted_space_ends_with_the_best_genome() -> None:
    space: SearchSpace = {
        "size": SPACE["size"],
        "depth": SearchDimension(Between(2, 3), whole=True, default=2),
    }

    def measured(number: int, proposals: Sequence[Proposal]) -> list[float | None]:
        return [float(proposal.genome[0]) for proposal in proposals]

    populations = list(evolve(space, RULES, measured))
    assert sum(population.new for population in populations) <= 6
    assert populations[-1].members[0].genome[0] == 64
