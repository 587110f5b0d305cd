"""Operators of an evolution: selection, crossover, mutation and elite. The generator is an argument."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

from clm_core.domain.evolution import Crossover, Mutation, Selection
from clm_core.domain.search_space import Between, Choice, SearchDimension, SearchSpace
from clm_core.evolution.genome import Genome, nearest, step
from clm_core.market.bars import Floats

CONTESTANTS = 3
"""Number of genomes drawn for a tournament."""
WORST_SHARE = 0.1
"""Probability of the worst genome in the roulette, as a fraction of the probability of the best genome."""
MUTATION_RATE = 0.1
"""Probability that a gene mutates."""
REACH = 0.2
"""Largest change of a number, as a fraction of the number; at least one step."""
ELITE_SHARE = 0.1
"""Share of a population kept unchanged."""

Select = Callable[[Sequence[Genome], Sequence[float], Generator], Genome]
"""Selection of a parent from genomes and fitness; fitness is finite, and greater is better."""
Cross = Callable[[SearchSpace, Genome, Genome, Generator], Genome]
Mutate = Callable[[SearchSpace, Genome, Generator], Genome]


def tournament(genomes: Sequence[Genome], fitness: Sequence[float], rng: Generator) -> Genome:
    """The best of `CONTESTANTS` genomes drawn with replacement."""
    contestants = rng.integers(len(genomes), size=CONTESTANTS)
    return genomes[max(contestants, key=lambda number: fitness[number])]


def roulette(genomes: Sequence[Genome], fitness: Sequence[float], rng: Generator) -> Genome:
    """A random genome, with a probability that grows linearly with the fitness."""
    return genomes[rng.choice(len(genomes), p=roulette_shares(fitness))]


def roulette_shares(fitness: Sequence[float]) -> Floats:
    """Selection probabilities, shape (n,): the worst genome has a tenth of the probability of the best.

    Fitness may be negative: only the distance to the worst counts. Equal fitness has equal probability.
    """
    above = np.asarray(fitness, np.float64) - min(fitness)
    scale = above.max()
    weights = np.ones_like(above) if scale == 0 else WORST_SHARE + (1 - WORST_SHARE) * (above / scale)
    shares: Floats = weights / weights.sum()
    return shares


def elite(genomes: Sequence[Genome], fitness: Sequence[float], population: int) -> list[Genome]:
    """The best tenth of a population, at least one genome, best first; ties in the order given."""
    count = max(1, round(ELITE_SHARE * population))
    best = sorted(range(len(genomes)), key=lambda number: -fitness[number])
    return [genomes[number] for number in best[:count]]


def single_point_crossover(space: SearchSpace, one: Genome, other: Genome, rng: Generator) -> Genome:
    """The first genes of `one` and the last genes of `other`, at least one gene of each parent."""
    cut = int(rng.integers(1, len(one))) if len(one) > 1 else int(rng.integers(2))
    return one[:cut] + other[cut:]


def uniform_crossover(space: SearchSpace, one: Genome, other: Genome, rng: Generator) -> Genome:
    """Each gene from either parent with equal probability."""
    takes = rng.random(len(one)) < 0.5
    return tuple(mine if take else theirs for mine, theirs, take in zip(one, other, takes, strict=True))


def average_crossover(space: SearchSpace, one: Genome, other: Genome, rng: Generator) -> Genome:
    """The mean of the parents' numbers; a choice from either parent with equal probability."""
    takes = rng.random(len(one)) < 0.5
    parents = zip(space.values(), one, other, takes, strict=True)
    return tuple(_mean(dimension, mine, theirs, take) for dimension, mine, theirs, take in parents)


def _mean(dimension: SearchDimension, mine: Choice, theirs: Choice, takes_mine: bool) -> Choice:
    if not isinstance(dimension.values, Between):
        return mine if takes_mine else theirs
    assert not isinstance(mine, str)
    assert not isinstance(theirs, str)
    return nearest(dimension, (mine + theirs) / 2)


def gaussian_mutation(space: SearchSpace, genome: Genome, rng: Generator) -> Genome:
    """Small changes of numbers are more likely than large changes."""
    return _mutated(space, genome, rng, lambda: float(np.clip(rng.normal(0.0, 0.5), -1.0, 1.0)))


def uniform_mutation(space: SearchSpace, genome: Genome, rng: Generator) -> Genome:
    """All changes of a number are equally likely."""
    return _mutated(space, genome, rng, lambda: float(rng.uniform(-1.0, 1.0)))


SELECTIONS: dict[Selection, Select] = {Selection.TOURNAMENT: tournament, Selection.ROULETTE: roulette}
CROSSOVERS: dict[Crossover, Cross] = {
    Crossover.UNIFORM: uniform_crossover,
    Crossover.SINGLE_POINT: single_point_crossover,
    Crossover.AVERAGE: average_crossover,
}
MUTATIONS: dict[Mutation, Mutate] = {
    Mutation.GAUSSIAN: gaussian_mutation,
    Mutation.UNIFORM: uniform_mutation,
}


def _mutated(space: SearchSpace, genome: Genome, rng: Generator, draw_change: Callable[[], float]) -> Genome:
    """
    Args:
        draw_change: draws the change of a number as a fraction of the largest change, -1..1.
    """
    hit = rng.random(len(genome)) < MUTATION_RATE
    return tuple(
        _changed(dimension, value, rng, draw_change) if is_hit else value
        for dimension, value, is_hit in zip(space.values(), genome, hit, strict=True)
    )


def _changed(
    dimension: SearchDimension, value: Choice, rng: Generator, draw_change: Callable[[], float]
) -> Choice:
    if not isinstance(dimension.values, Between):
        others = [choice for choice in dimension.values.choices if choice != value]
        return others[rng.integers(len(others))] if others else value
    assert not isinstance(value, str)
    smallest = step(dimension)
    fraction = draw_change()
    change = fraction * max(REACH * abs(value), smallest)
    if dimension.whole and abs(change) < smallest:
        # rounding would undo the change
        change = np.copysign(smallest, fraction)
    return nearest(dimension, value + change)
