"""Operators over a whole population at once: selection, crossover and mutation. The generator is an argument.

Rows are candidates, columns are genes (`clm_core.evolution.genes`). Children are not rounded: `Genes.nearest`
follows the last operator. Sources of the operators on real numbers: simulated binary crossover (SBX), Deb &
Agrawal 1995, "Simulated binary crossover for continuous search space"; polynomial mutation, Deb & Goyal 1996,
both with bounds as in Deb's NSGA-II.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from clm_core.evolution.genes import Genes
from clm_core.evolution.operators import MUTATION_RATE, REACH, roulette_shares
from clm_core.evolution.pareto import Ints
from clm_core.market.bars import Floats

CONTESTANTS = 2
"""Number of rows drawn for a tournament."""
SBX_INDEX = 15.0
"""Distribution index of SBX: a greater index gives children closer to the parents."""
SBX_RATE = 0.5
"""Probability that SBX changes a gene."""
POLYNOMIAL_INDEX = 20.0
"""Distribution index of the polynomial mutation."""
ALMOST_EQUAL = 1e-14
"""Distance of two parents below which SBX changes nothing."""

SelectRows = Callable[[Ints, int, Generator], Ints]
"""Function from the standing of each row, greater is better, and a number of rows to the rows selected."""
CrossRows = Callable[[Genes, Floats, Floats, Generator], Floats]
"""Function from genes and two arrays of parents, shape (n, n_genes), to a child of each pair."""
MutateRows = Callable[[Genes, Floats, Generator], Floats]


def select_by_tournament(standing: Ints, count: int, rng: Generator) -> Ints:
    """Rows selected, shape (count,): each the best of `CONTESTANTS` drawn with replacement; ties are broken
    at random."""
    drawn: Ints = rng.integers(len(standing), size=(count, CONTESTANTS))
    # of equal contestants the first, which was drawn at random
    best = standing[drawn].argmax(axis=1)
    selected: Ints = drawn[np.arange(count), best]
    return selected


def select_by_roulette(standing: Ints, count: int, rng: Generator) -> Ints:
    """Rows selected, shape (count,), with a probability that grows linearly with the standing: the worst row
    has a tenth of the probability of the best."""
    shares = roulette_shares(standing.tolist())
    return rng.choice(len(standing), size=count, p=shares).astype(np.int64)


def cross_at_single_point(genes: Genes, one: Floats, other: Floats, rng: Generator) -> Floats:
    """The first genes of `one` and the last genes of `other`, at least one gene of each."""
    if len(genes) < 2:
        return cross_uniformly(genes, one, other, rng)
    cuts = rng.integers(1, len(genes), size=(len(one), 1))
    return np.where(np.arange(len(genes)) < cuts, one, other)


def cross_uniformly(genes: Genes, one: Floats, other: Floats, rng: Generator) -> Floats:
    """Each gene from either parent with equal probability."""
    return np.where(rng.random(one.shape) < 0.5, one, other)


def cross_by_average(genes: Genes, one: Floats, other: Floats, rng: Generator) -> Floats:
    """The mean of the parents' numbers; a choice from either parent with equal probability."""
    return np.where(genes.is_choice, cross_uniformly(genes, one, other, rng), (one + other) / 2)


def cross_by_sbx(genes: Genes, one: Floats, other: Floats, rng: Generator) -> Floats:
    """Simulated binary crossover on the scales of the genes, one of the two children at random for each gene.

    A choice is from either parent with equal probability.
    """
    changes, right, draws = rng.random((3, *one.shape))
    low = genes.scaled(genes.low)
    high = genes.scaled(genes.high)
    first = genes.scaled(one)
    second = genes.scaled(other)
    below = np.minimum(first, second)
    above = np.maximum(first, second)
    width = np.maximum(above - below, ALMOST_EQUAL)
    middle = (below + above) / 2
    room = np.where(right < 0.5, below - low, high - above)
    side = np.where(right < 0.5, -1.0, 1.0)
    child = middle + side * sbx_spread(draws, 1.0 + 2.0 * room / width, SBX_INDEX) * width / 2
    changed = (changes < SBX_RATE) & (above - below > ALMOST_EQUAL) & ~genes.is_choice
    kept = np.where(genes.is_choice & (changes < 0.5), other, one)
    return np.where(changed, np.clip(genes.unscaled(child), genes.low, genes.high), kept)


def sbx_spread(draws: Floats, reach: Floats, index: float) -> Floats:
    """Distance of the children over the distance of the parents.

    Args:
        draws: uniform in [0, 1).
        reach: the spread at which a child reaches the bound, at least 1; shape as `draws`.
        index: distribution index.
    """
    alpha = 2.0 - reach ** -(index + 1.0)
    contracting = (draws * alpha) ** (1.0 / (index + 1.0))
    with np.errstate(divide="ignore"):
        expanding = (1.0 / (2.0 - draws * alpha)) ** (1.0 / (index + 1.0))
    return np.where(draws <= 1.0 / alpha, contracting, expanding)


def mutate_normally(genes: Genes, values: Floats, rng: Generator) -> Floats:
    """Gaussian mutation: a gene in ten changes by up to a fifth, small changes being more likely."""
    return _mutated(genes, values, np.clip(rng.normal(0.0, 0.5, values.shape), -1.0, 1.0), rng)


def mutate_uniformly(genes: Genes, values: Floats, rng: Generator) -> Floats:
    """Uniform mutation: a gene in ten changes by up to a fifth, all changes being equally likely."""
    return _mutated(genes, values, rng.uniform(-1.0, 1.0, values.shape), rng)


def mutate_polynomially(genes: Genes, values: Floats, rng: Generator) -> Floats:
    """Polynomial mutation on the scales of the genes, of one gene of a row on average; a choice becomes
    another choice."""
    hit, draws = rng.random((2, *values.shape))
    low = genes.scaled(genes.low)
    high = genes.scaled(genes.high)
    width = np.where(high > low, high - low, 1.0)
    scaled = genes.scaled(values)
    change = polynomial_change(draws, (scaled - low) / width, (high - scaled) / width, POLYNOMIAL_INDEX)
    changed = np.clip(genes.unscaled(scaled + change * width), genes.low, genes.high)
    changed = np.where(genes.is_choice, _another_choice(genes, values, rng), changed)
    return np.where(hit < 1.0 / len(genes), changed, values)


def polynomial_change(draws: Floats, below: Floats, above: Floats, index: float) -> Floats:
    """Change as a fraction of the range.

    Args:
        draws: uniform in [0, 1).
        below: distance from the lower bound, 0..1, as a fraction of the range; shape as `draws`.
        above: distance from the upper bound, 0..1.
        index: distribution index.
    """
    power = index + 1.0
    down = 2.0 * draws + (1.0 - 2.0 * draws) * (1.0 - below) ** power
    up = 2.0 * (1.0 - draws) + (2.0 * draws - 1.0) * (1.0 - above) ** power
    # of either side, the draws of the other may lie outside 0..1
    down = np.maximum(down, 0.0)
    up = np.maximum(up, 0.0)
    return np.where(draws <= 0.5, down ** (1.0 / power) - 1.0, 1.0 - up ** (1.0 / power))


def _mutated(genes: Genes, values: Floats, fractions: Floats, rng: Generator) -> Floats:
    """
    Args:
        fractions: changes as fractions of the largest change, -1..1, shape (n, n_genes).
    """
    hit = rng.random(values.shape) < MUTATION_RATE
    change = fractions * np.maximum(REACH * np.abs(values), genes.step)
    # rounding would undo a smaller change of an integer
    too_small = genes.is_whole & (np.abs(change) < genes.step)
    change = np.where(too_small, np.copysign(genes.step, fractions), change)
    changed = np.where(genes.is_choice, _another_choice(genes, values, rng), values + change)
    return np.where(hit, changed, values)


def _another_choice(genes: Genes, values: Floats, rng: Generator) -> Floats:
    """Another place for every choice, uniformly, shape (n, n_genes); meaningless for numbers."""
    places = genes.high + 1.0
    others = np.maximum(places - 1.0, 1.0)
    return np.asarray((values + 1.0 + np.floor(rng.random(values.shape) * others)) % places)
