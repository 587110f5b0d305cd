"""NSGA-II: a search for the Pareto front of several objectives, over the whole population at once.

Generation 0 is drawn at random, around given founders. Each later generation breeds as many children as there
are members; of members and children together the best survive: by rank, and within the last rank by crowding
distance (`clm_core.evolution.pareto`). Every objective is to be as great as possible.

With an elite in the rules the search is a genetic algorithm: the best share of a generation is kept, and
children replace the other members, better or not.

Source: Deb, Pratap, Agarwal & Meyarivan 2002, IEEE Transactions on Evolutionary Computation 6(2), with the
pruning of Kukkonen & Deb 2006 in place of one sorting by crowding distance.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from clm_core.domain.vocabulary import CandidateOrigin
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

ORIGINS = (
    CandidateOrigin.MANUAL,
    CandidateOrigin.RANDOM,
    CandidateOrigin.MUTATION,
    CandidateOrigin.CROSSOVER,
)
"""Origins by their number in `SearchGeneration.new_origins`."""
FOUNDER, RANDOM, MUTATED, CROSSED = range(4)

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
    elite_share: float | None = None
    """Share of a generation kept, at least one member, while children replace the rest; None for NSGA-II."""

    @property
    def elite(self) -> int:
        """Number of members kept unseen of the children; 0 for NSGA-II."""
        return 0 if self.elite_share is None else max(1, round(self.elite_share * self.population))


@dataclass(frozen=True, eq=False)
class SearchGeneration:
    """A generation: the candidates measured first in it, and the members that survived."""

    number: int
    new_genes: Floats
    """Genes of the candidates measured first in this generation, shape (n_new, n_genes)."""
    new_scores: Floats
    """Scores of these candidates, shape (n_new, n_objectives)."""
    new_origins: Ints
    """Origins of these candidates, numbers in `ORIGINS`, shape (n_new,)."""
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
    scores = _checked(objectives(new.genes), len(new.genes))
    reference = rules.reference or _lowest(scores)
    last = _survive(0, new, scores, new.genes, scores, rules.population, reference)
    yield last
    for number in range(1, rules.generations + 1):
        rng = np.random.default_rng([rules.seed, number])
        new = _children(genes, rules, last, measured, rng)
        scores = _checked(objectives(new.genes), len(new.genes)) if len(new.genes) else last.scores[:0]
        kept = _kept(last, rules)
        pool = np.concatenate([last.genes[kept], new.genes])
        pool_scores = np.concatenate([last.scores[kept], scores])
        last = _survive(number, new, scores, pool, pool_scores, rules.population, reference)
        yield last


@dataclass(frozen=True, eq=False)
class _New:
    """Candidates that were not measured before."""

    genes: Floats
    origins: Ints

    @classmethod
    def joined(cls, parts: list["_New"]) -> "_New":
        return cls(
            np.concatenate([each.genes for each in parts]), np.concatenate([each.origins for each in parts])
        )


def _kept(last: SearchGeneration, rules: SearchRules) -> Ints:
    """Members that compete with the children, in their order: all, or the elite."""
    if not rules.elite:
        return np.arange(len(last.genes))
    best = np.argsort(-standings(last.ranks, last.crowding), kind="stable")[: rules.elite]
    return np.sort(best)


def _survive(
    number: int,
    new: _New,
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
        new.genes,
        scores,
        new.origins,
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


def _first(genes: Genes, count: int, founders: Floats | None, measured: set[bytes], rng: Generator) -> _New:
    """Founders and random candidates, fewer than `count` where the space has no more points."""
    given = genes.nearest(np.empty((0, len(genes))) if founders is None else founders)
    rows = given[_unknown(given, measured, count)]
    return _New.joined(
        [_New(rows, np.full(len(rows), FOUNDER)), _random(genes, count - len(rows), measured, rng)]
    )


def _random(genes: Genes, count: int, measured: set[bytes], rng: Generator) -> _New:
    parts = [np.empty((0, len(genes)))]
    for _ in range(MAX_TRIES):
        if count > 0:
            drawn = genes.random(count, rng)
            parts.append(drawn[_unknown(drawn, measured, count)])
            count -= len(parts[-1])
    rows = np.concatenate(parts)
    return _New(rows, np.full(len(rows), RANDOM))


def _children(
    genes: Genes, rules: SearchRules, before: SearchGeneration, measured: set[bytes], rng: Generator
) -> _New:
    """Children that were not measured before, as many as the population without the elite; random candidates
    where breeding finds nothing new in `MAX_TRIES` rounds."""
    parts: list[_New] = []
    count = rules.population - rules.elite
    standing = standings(before.ranks, before.crowding)
    for _ in range(MAX_TRIES):
        if count > 0:
            one, other = (before.genes[rules.select(standing, count, rng)] for _ in range(2))
            crossed = rng.random((count, 1)) < rules.crossover_share
            children = np.where(crossed, rules.cross(genes, one, other, rng), one)
            children = genes.nearest(rules.mutate(genes, children, rng))
            new = _unknown(children, measured, count)
            parts.append(_New(children[new], np.where(crossed[new, 0], CROSSED, MUTATED)))
            count -= len(new)
    return _New.joined([*parts, _random(genes, count, measured, rng)])


def _unknown(rows: Floats, measured: set[bytes], count: int) -> Ints:
    """Places of up to `count` rows that were not measured, each once; they count as measured from now on."""
    new: list[int] = []
    for number, row in enumerate(np.ascontiguousarray(rows)):
        key = row.tobytes()
        if len(new) < count and key not in measured:
            measured.add(key)
            new.append(number)
    return np.array(new, np.int64)
