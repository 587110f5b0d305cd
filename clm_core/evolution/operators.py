"""Who has children, how two are crossed, and what changes by chance. Chance is an argument."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

from clm_core.domain.evolution import Crossover, Mutation, Selection
from clm_core.domain.search_space import Between, Choice, SearchDimension, SearchSpace
from clm_core.evolution.genome import Genome, nearest, step
from clm_core.market.bars import Floats

CONTESTANTS = 3
"""In a tournament."""
WORST_SHARE = 0.1
"""Of the best one's chance in the roulette, what the worst one has."""
MUTATION_RATE = 0.1
"""Of each gene."""
REACH = 0.2
"""Of a number, what it is changed by at most; but always by a step."""
ELITE_SHARE = 0.1

Select = Callable[[Sequence[Genome], Sequence[float], Generator], Genome]
"""Fitness is finite, and greater is better."""
Cross = Callable[[Genome, Genome, Generator], Genome]
Mutate = Callable[[SearchSpace, Genome, Generator], Genome]


def tournament(genomes: Sequence[Genome], fitness: Sequence[float], rng: Generator) -> Genome:
    """The best of a few that are drawn, with repetition."""
    contestants = rng.integers(len(genomes), size=CONTESTANTS)
    return genomes[max(contestants, key=lambda number: fitness[number])]


def roulette(genomes: Sequence[Genome], fitness: Sequence[float], rng: Generator) -> Genome:
    """Each by chance, in proportion to how much it is better than the worst."""
    return genomes[rng.choice(len(genomes), p=roulette_shares(fitness))]


def roulette_shares(fitness: Sequence[float]) -> Floats:
    """Chance of each, shape (n,): the worst has a tenth of the best one's, equals have the same.

    Fitness may be negative: only what lies between it and the worst counts.
    """
    above = np.asarray(fitness, np.float64) - min(fitness)
    scale = above.max()
    weights = np.ones_like(above) if scale == 0 else WORST_SHARE + (1 - WORST_SHARE) * (above / scale)
    shares: Floats = weights / weights.sum()
    return shares


def elite(genomes: Sequence[Genome], fitness: Sequence[float], population: int) -> list[Genome]:
    """The best tenth of a population, at least one, best first; of equals those that come first."""
    count = max(1, round(ELITE_SHARE * population))
    best = sorted(range(len(genomes)), key=lambda number: -fitness[number])
    return [genomes[number] for number in best[:count]]


def single_point_crossover(one: Genome, other: Genome, rng: Generator) -> Genome:
    """The first genes of one and the last of the other, at least one of each."""
    cut = int(rng.integers(1, len(one))) if len(one) > 1 else int(rng.integers(2))
    return one[:cut] + other[cut:]


def uniform_crossover(one: Genome, other: Genome, rng: Generator) -> Genome:
    """Each gene of either, as likely."""
    takes = rng.random(len(one)) < 0.5
    return tuple(mine if take else theirs for mine, theirs, take in zip(one, other, takes, strict=True))


def gaussian_mutation(space: SearchSpace, genome: Genome, rng: Generator) -> Genome:
    """Small changes of numbers are likelier than large ones."""
    return _mutated(space, genome, rng, lambda: float(np.clip(rng.normal(0.0, 0.5), -1.0, 1.0)))


def uniform_mutation(space: SearchSpace, genome: Genome, rng: Generator) -> Genome:
    """Every change of a number is as likely."""
    return _mutated(space, genome, rng, lambda: float(rng.uniform(-1.0, 1.0)))


SELECTIONS: dict[Selection, Select] = {Selection.TOURNAMENT: tournament, Selection.ROULETTE: roulette}
CROSSOVERS: dict[Crossover, Cross] = {
    Crossover.UNIFORM: uniform_crossover,
    Crossover.SINGLE_POINT: single_point_crossover,
}
MUTATIONS: dict[Mutation, Mutate] = {
    Mutation.GAUSSIAN: gaussian_mutation,
    Mutation.UNIFORM: uniform_mutation,
}


def _mutated(space: SearchSpace, genome: Genome, rng: Generator, turn: Callable[[], float]) -> Genome:
    """
    Args:
        turn: how far a number goes of its reach, -1..1.
    """
    hit = rng.random(len(genome)) < MUTATION_RATE
    return tuple(
        _changed(tuned, value, rng, turn) if is_hit else value
        for tuned, value, is_hit in zip(space.values(), genome, hit, strict=True)
    )


def _changed(tuned: SearchDimension, value: Choice, rng: Generator, turn: Callable[[], float]) -> Choice:
    if not isinstance(tuned.values, Between):
        others = [choice for choice in tuned.values.choices if choice != value]
        return others[rng.integers(len(others))] if others else value
    assert not isinstance(value, str)
    least, part = step(tuned), turn()
    change = part * max(REACH * abs(value), least)
    if tuned.whole and abs(change) < least:
        # rounded it would be no change at all
        change = np.copysign(least, part)
    return nearest(tuned, value + change)
