"""NSGA-II: a search for the Pareto front of several objectives, over the whole population at once.

Generation 0 is drawn at random, around given founders. Each later generation breeds as many children as there
are members; of members and children together the best survive: by rank, and within the last rank by crowding
distance (`clm_core.evolution.pareto`). Every objective is to be as great as possible.

Source: Deb, Pratap, Agarwal & Meyarivan 2002, IEEE Transactions on Evolutionary Computation 6(2), with the
pruning of Kukkonen & Deb 2006 in place of one sorting by crowding distance.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from clm_core.evolution.generations import MAX_TRIES
from clm_core.evolution.genes import Genes
from clm_core.evolution.pareto import (
    Ints,
    crowding_distances,
    hypervolume,
    is_measured,
    pareto_ranks,
    standings,
    survivors,
)
from clm_core.evolution.variation import (
    CrossRows,
    MutateRows,
    SelectRows,
    cross_uniformly,
    mutate_normally,
    select_by_tournament,
)
from clm_core.market.bars import Floats

CROSSOVER_SHARE = 0.9
"""Share of the children with two parents; the other children are mutated copies of one."""

Objectives = Callable[[Floats], Floats]
"""Function from the genes of new candidates, shape (n, n_genes), to their scores, shape (n, n_objectives).

Greater is better; NaN where not measurable. The scores of a row must not depend on the other rows: the search
then gives the same result however the rows are divided among workers."""


@dataclass(frozen=True)
class SearchRules:
    """Rules of a search."""

    population: int
    generations: int
    """Number of generations after generation 0."""
    seed: int
    reference: tuple[float, ...] | None = None
    """Reference point of the hypervolume, the worst score of interest of each objective; None for the lowest
    measured scores of generation 0."""
    select: SelectRows = select_by_tournament
    cross: CrossRows = cross_uniformly
    mutate: MutateRows = mutate_normally
    crossover_share: float = CROSSOVER_SHARE


@dataclass(frozen=True, eq=False)
class SearchGeneration:
    """A generation: the candidates measured first in it, and the members that survived."""

    number: int
    new_genes: Floats
    """Genes of the candidates measured first in this generation, shape (n_new, n_genes)."""
    new_scores: Floats
    """Scores of these candidates, shape (n_new, n_objectives)."""
    genes: Floats
    """Genes of the members, shape (n, n_genes)."""
    scores: Floats
    """Scores of the members, shape (n, n_objectives)."""
    ranks: Ints
    """Rank of each member, shape (n,); 0 for the Pareto front of the members."""
    crowding: Floats
    """Crowding distance of each member within its rank, shape (n,)."""
    reference: tuple[float, ...]
    """Reference point of the hypervolume."""
    hypervolume: float
    """Hypervolume of the members; 0.0 without a measured member."""

    @property
    def front(self) -> Ints:
        """Measured members on the Pareto front, in the order of the members."""
        return np.flatnonzero((self.ranks == 0) & is_measured(self.scores))


def search(
    genes: Genes, rules: SearchRules, objectives: Objectives, founders: Floats | None = None
) -> Iterator[SearchGeneration]:
    """Generation 0 and the generations bred from generation 0. No candidate is measured twice.

    The candidates of a generation follow from the seed, the number of the generation and the scores before.

    Args:
        genes: ranges of the genes.
        rules: rules of the search.
        objectives: measures new candidates.
        founders: candidates of generation 0 besides the random ones, shape (n, n_genes), n at most the
            population.
    """
    measured = set[bytes]()
    rng = np.random.default_rng([rules.seed, 0])
    new = _first(genes, rules.population, founders, measured, rng)
    scores = _checked(objectives(new), len(new))
    reference = rules.reference or _lowest(scores)
    last = _survive(0, new, scores, new, scores, rules.population, reference)
    yield last
    for number in range(1, rules.generations + 1):
        rng = np.random.default_rng([rules.seed, number])
        new = _children(genes, rules, last, measured, rng)
        scores = _checked(objectives(new), len(new)) if len(new) else last.scores[:0]
        pool = np.concatenate([last.genes, new])
        pool_scores = np.concatenate([last.scores, scores])
        last = _survive(number, new, scores, pool, pool_scores, rules.population, reference)
        yield last


def _survive(
    number: int,
    new: Floats,
    scores: Floats,
    pool: Floats,
    pool_scores: Floats,
    population: int,
    reference: tuple[float, ...],
) -> SearchGeneration:
    best = survivors(pool_scores, pareto_ranks(pool_scores), population)
    members = pool_scores[best]
    ranks = pareto_ranks(members)
    return SearchGeneration(
        number,
        new,
        scores,
        pool[best],
        members,
        ranks,
        crowding_distances(members, ranks),
        reference,
        hypervolume(members, np.array(reference)),
    )


def _lowest(scores: Floats) -> tuple[float, ...]:
    """Lowest measured score of each objective; 0.0 without a measured row."""
    rows = scores[is_measured(scores)]
    return tuple(rows.min(axis=0).tolist()) if len(rows) else (0.0,) * scores.shape[1]


def _checked(scores: Floats, count: int) -> Floats:
    """
    Raises:
        ValueError: the objectives gave no row for each candidate.
    """
    if scores.ndim != 2 or len(scores) != count:
        raise ValueError(f"give a row of scores for each of {count} candidates, not shape {scores.shape}")
    return np.asarray(scores, np.float64)


def _first(genes: Genes, count: int, founders: Floats | None, measured: set[bytes], rng: Generator) -> Floats:
    """Founders and random candidates, shape (count, n_genes), fewer where the space has no more points."""
    given = np.empty((0, len(genes))) if founders is None else founders
    rows = _unknown(genes.nearest(given), measured, count)
    return np.concatenate([rows, _random(genes, count - len(rows), measured, rng)])


def _random(genes: Genes, count: int, measured: set[bytes], rng: Generator) -> Floats:
    parts = [np.empty((0, len(genes)))]
    for _ in range(MAX_TRIES):
        if count > 0:
            parts.append(_unknown(genes.random(count, rng), measured, count))
            count -= len(parts[-1])
    return np.concatenate(parts)


def _children(
    genes: Genes, rules: SearchRules, before: SearchGeneration, measured: set[bytes], rng: Generator
) -> Floats:
    """Children that were not measured before, as many as the population; random candidates where breeding
    finds nothing new in `MAX_TRIES` rounds."""
    parts = [np.empty((0, len(genes)))]
    count = rules.population
    standing = standings(before.ranks, before.crowding)
    for _ in range(MAX_TRIES):
        if count > 0:
            one, other = (before.genes[rules.select(standing, count, rng)] for _ in range(2))
            crossed = rng.random((count, 1)) < rules.crossover_share
            children = np.where(crossed, rules.cross(genes, one, other, rng), one)
            children = genes.nearest(rules.mutate(genes, children, rng))
            parts.append(_unknown(children, measured, count))
            count -= len(parts[-1])
    return np.concatenate([*parts, _random(genes, count, measured, rng)])


def _unknown(rows: Floats, measured: set[bytes], count: int) -> Floats:
    """Up to `count` rows that were not measured, each once; they count as measured from now on."""
    # adding 0.0 turns -0.0 into 0.0
    array = np.ascontiguousarray(rows) + 0.0
    new: list[int] = []
    for number, row in enumerate(array):
        key = row.tobytes()
        if len(new) < count and key not in measured:
            measured.add(key)
            new.append(number)
    return array[new]
