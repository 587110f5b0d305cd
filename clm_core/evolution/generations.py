"""Generations of an evolutionary search, independent of the objective."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from clm_core.domain.evolution import Crossover, Mutation, Selection
from clm_core.domain.search_space import SearchSpace
from clm_core.domain.vocabulary import CandidateOrigin
from clm_core.evolution.genome import Genome, default_genome, random_genome
from clm_core.evolution.operators import CROSSOVERS, MUTATIONS, SELECTIONS, elite

CROSSOVER_SHARE = 0.5
"""Share of the children with two parents; the remaining children have one. All children may mutate."""
MAX_TRIES = 50
"""Maximum number of tries to breed a new genome, before a genome is drawn at random."""


@dataclass(frozen=True)
class Rules:
    """Rules of an evolution."""

    population: int
    generations: int
    """Number of generations after generation 0."""
    selection: Selection
    crossover: Crossover
    mutation: Mutation
    seed: int


@dataclass(frozen=True)
class Proposal:
    """A genome to be measured, and its origin."""

    genome: Genome
    origin: CandidateOrigin
    parents: tuple[Genome, ...] = ()


@dataclass(frozen=True)
class Individual:
    genome: Genome
    fitness: float | None
    """Fitness; None if not measurable, in which case the individual has no children."""


@dataclass(frozen=True)
class Population:
    """A measured generation."""

    number: int
    new: int
    """Number of members measured first in this generation."""
    members: tuple[Individual, ...]
    """Members by falling fitness, members without fitness last."""


Objective = Callable[[int, Sequence[Proposal]], Sequence[float | None]]
"""Measures the new proposals of a generation: number and proposals in, fitness out.

Greater is better; None or NaN if not measurable."""


def evolve(space: SearchSpace, rules: Rules, objective: Objective) -> Iterator[Population]:
    """Generation 0 and the generations bred from generation 0. No genome is measured twice.

    The proposals follow from the seed, the number of the generation and the measured fitness only, so that an
    evolution that is started again proposes the same.
    """
    measured = dict[Genome, float | None]()
    population = Population(-1, 0, ())
    for number in range(rules.generations + 1):
        rng = np.random.default_rng([rules.seed, number])
        kept = _elite(population, rules)
        proposals = _Breeding(space, rules, population, measured.keys(), rng).proposals(
            rules.population - len(kept)
        )
        new = [proposal for proposal in proposals if proposal.genome not in measured]
        values = map(_finite, objective(number, new))
        measured |= dict(zip((proposal.genome for proposal in new), values, strict=True))
        genomes = dict.fromkeys([*kept, *(proposal.genome for proposal in proposals)])
        members = sorted((Individual(genome, measured[genome]) for genome in genomes), key=_rank)
        population = Population(number, len(new), tuple(members))
        yield population


class _Breeding:
    """Proposals of one generation."""

    def __init__(
        self,
        space: SearchSpace,
        rules: Rules,
        before: Population,
        measured: Collection[Genome],
        rng: Generator,
    ) -> None:
        self._space = space
        self._rules = rules
        self._measured = measured
        self._rng = rng
        self._is_first = before.number < 0
        self._parents, self._fitness = _measurable(before)

    def proposals(self, count: int) -> list[Proposal]:
        """Up to `count` different proposals; fewer where the space has no more points."""
        proposed = dict[Genome, Proposal]()
        if self._is_first:
            genome = default_genome(self._space)
            proposed[genome] = Proposal(genome, CandidateOrigin.MANUAL)
        for _ in range(count - len(proposed)):
            proposal = self._next(proposed)
            proposed.setdefault(proposal.genome, proposal)
        return list(proposed.values())

    def _next(self, proposed: Collection[Genome]) -> Proposal:
        for _ in range(MAX_TRIES if self._parents else 0):
            child = self._child()
            if child.genome not in self._measured and child.genome not in proposed:
                return child
        for _ in range(MAX_TRIES):
            genome = random_genome(self._space, self._rng)
            if genome not in self._measured and genome not in proposed:
                break
        return Proposal(genome, CandidateOrigin.RANDOM)

    def _child(self) -> Proposal:
        select = SELECTIONS[self._rules.selection]
        mutate = MUTATIONS[self._rules.mutation]
        parent = select(self._parents, self._fitness, self._rng)
        others = [number for number, genome in enumerate(self._parents) if genome != parent]
        if not others or self._rng.random() >= CROSSOVER_SHARE:
            return Proposal(mutate(self._space, parent, self._rng), CandidateOrigin.MUTATION, (parent,))
        other = select(
            [self._parents[number] for number in others],
            [self._fitness[number] for number in others],
            self._rng,
        )
        crossed = CROSSOVERS[self._rules.crossover](self._space, parent, other, self._rng)
        return Proposal(mutate(self._space, crossed, self._rng), CandidateOrigin.CROSSOVER, (parent, other))


def _elite(population: Population, rules: Rules) -> list[Genome]:
    genomes, fitness = _measurable(population)
    return elite(genomes, fitness, rules.population)


def _measurable(population: Population) -> tuple[list[Genome], list[float]]:
    """Genomes and fitness of the members with a fitness."""
    fitness = {each.genome: each.fitness for each in population.members if each.fitness is not None}
    return list(fitness), list(fitness.values())


def _finite(fitness: float | None) -> float | None:
    return fitness if fitness is not None and math.isfinite(fitness) else None


def _rank(member: Individual) -> float:
    return math.inf if member.fitness is None else -member.fitness
