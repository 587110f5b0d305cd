"""Generation after generation, whatever it is that is measured."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator as Chance

from clm_core.domain.evolution import Crossover, Mutation, Selection
from clm_core.domain.search_space import SearchSpace
from clm_core.domain.vocabulary import CandidateOrigin
from clm_core.evolution.genome import Genome, default_genome, random_genome
from clm_core.evolution.operators import CROSSOVERS, MUTATIONS, SELECTIONS, elite

CROSSED_SHARE = 0.5
"""Of the children; the others have one parent. All may mutate."""
TRIES = 50
"""To breed what was not tried before; then one is drawn at random."""


@dataclass(frozen=True)
class Rules:
    population: int
    generations: int
    """After generation 0."""
    selection: Selection
    crossover: Crossover
    mutation: Mutation
    seed: int


@dataclass(frozen=True)
class Proposal:
    """What is to be measured, and where it comes from."""

    genome: Genome
    origin: CandidateOrigin
    parents: tuple[Genome, ...] = ()


@dataclass(frozen=True)
class Individual:
    genome: Genome
    fitness: float | None
    """None: it could not be measured, and has no children."""


@dataclass(frozen=True)
class Population:
    """A generation that was measured."""

    number: int
    new: int
    """Of its members, those that were measured in it."""
    members: tuple[Individual, ...]
    """The best first, what could not be measured last."""


Objective = Callable[[int, Sequence[Proposal]], Sequence[float | None]]
"""Measures what is new in the generation of a number, greater is better; None or NaN: it cannot be."""


def evolve(space: SearchSpace, rules: Rules, objective: Objective) -> Iterator[Population]:
    """Generation 0 and those bred from it. What was measured once is not measured again.

    What is bred follows from seed, number and what was measured: not from when, or how often it was begun.
    """
    measured = dict[Genome, float | None]()
    population = Population(-1, 0, ())
    for number in range(rules.generations + 1):
        rng = np.random.default_rng([rules.seed, number])
        kept = _elite(population, rules)
        proposals = _Breeding(space, rules, population, measured.keys(), rng).fill(
            rules.population - len(kept)
        )
        new = [proposal for proposal in proposals if proposal.genome not in measured]
        values = map(_finite, objective(number, new))
        measured |= dict(zip((proposal.genome for proposal in new), values, strict=True))
        genomes = dict.fromkeys([*kept, *(proposal.genome for proposal in proposals)])
        members = sorted((Individual(genome, measured[genome]) for genome in genomes), key=_place)
        population = Population(number, len(new), tuple(members))
        yield population


class _Breeding:
    """One generation's proposals."""

    def __init__(
        self,
        space: SearchSpace,
        rules: Rules,
        before: Population,
        tried: Collection[Genome],
        rng: Chance,
    ) -> None:
        self._space, self._rules, self._tried, self._rng = space, rules, tried, rng
        self._is_first = before.number < 0
        self._parents, self._fitness = _measurable(before)

    def fill(self, count: int) -> list[Proposal]:
        """So many, each once; fewer where the space has no more."""
        proposed = dict[Genome, Proposal]()
        if self._is_first:
            genome = default_genome(self._space)
            proposed[genome] = Proposal(genome, CandidateOrigin.MANUAL)
        for _ in range(count - len(proposed)):
            proposal = self._next(proposed)
            proposed.setdefault(proposal.genome, proposal)
        return list(proposed.values())

    def _next(self, proposed: Collection[Genome]) -> Proposal:
        for _ in range(TRIES if self._parents else 0):
            child = self._child()
            if child.genome not in self._tried and child.genome not in proposed:
                return child
        for _ in range(TRIES):
            genome = random_genome(self._space, self._rng)
            if genome not in self._tried and genome not in proposed:
                break
        return Proposal(genome, CandidateOrigin.RANDOM)

    def _child(self) -> Proposal:
        select, mutate = SELECTIONS[self._rules.selection], MUTATIONS[self._rules.mutation]
        parent = select(self._parents, self._fitness, self._rng)
        others = [number for number, genome in enumerate(self._parents) if genome != parent]
        if not others or self._rng.random() >= CROSSED_SHARE:
            return Proposal(mutate(self._space, parent, self._rng), CandidateOrigin.MUTATION, (parent,))
        other = select(
            [self._parents[number] for number in others],
            [self._fitness[number] for number in others],
            self._rng,
        )
        crossed = CROSSOVERS[self._rules.crossover](parent, other, self._rng)
        return Proposal(mutate(self._space, crossed, self._rng), CandidateOrigin.CROSSOVER, (parent, other))


def _elite(population: Population, rules: Rules) -> list[Genome]:
    genomes, fitness = _measurable(population)
    return elite(genomes, fitness, rules.population)


def _measurable(population: Population) -> tuple[list[Genome], list[float]]:
    found = {each.genome: each.fitness for each in population.members if each.fitness is not None}
    return list(found), list(found.values())


def _finite(fitness: float | None) -> float | None:
    return fitness if fitness is not None and math.isfinite(fitness) else None


def _place(member: Individual) -> float:
    return math.inf if member.fitness is None else -member.fitness
