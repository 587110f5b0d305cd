"""Problems ZDT1, ZDT2, ZDT3 and ZDT6 of Zitzler, Deb & Thiele (2000), "Comparison of multiobjective
evolutionary algorithms: empirical results", Evolutionary Computation 8(2).

Both objectives are negated: greater is better."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clm_core.evolution.genes import Genes
from clm_core.evolution.nsga2 import SearchGeneration, SearchRules, search
from clm_core.evolution.variation import cross_by_sbx, mutate_polynomially
from clm_core.market.bars import Floats

REFERENCE = (-1.1, -1.1)
POPULATION = 100
GENERATIONS = 250
"""Number of generations, generation 0 included."""


@dataclass(frozen=True)
class Problem:
    variables: int
    """Number of variables, each in 0..1."""
    objectives: Callable[[Floats], Floats]
    """Scores of the rows, shape (n, 2)."""
    exact: float
    """Hypervolume of the exact front at `REFERENCE`."""

    def generations(self, seed: int, population: int, generations: int) -> list[SearchGeneration]:
        """Generations of our NSGA-II, with SBX and polynomial mutation."""
        genes = Genes.between(np.zeros(self.variables), np.ones(self.variables))
        rules = SearchRules(
            population, generations - 1, seed, REFERENCE, cross=cross_by_sbx, mutate=mutate_polynomially
        )
        return list(search(genes, rules, self.objectives))


def _zdt1(x: Floats) -> Floats:
    g = 1 + 9 * x[:, 1:].mean(axis=1)
    return -np.column_stack([x[:, 0], g - np.sqrt(x[:, 0] * g)])


def _zdt2(x: Floats) -> Floats:
    g = 1 + 9 * x[:, 1:].mean(axis=1)
    return -np.column_stack([x[:, 0], g - x[:, 0] ** 2 / g])


def _zdt3(x: Floats) -> Floats:
    g = 1 + 9 * x[:, 1:].mean(axis=1)
    f = x[:, 0]
    return -np.column_stack([f, g - np.sqrt(f * g) - f * np.sin(10 * np.pi * f)])


def _zdt6(x: Floats) -> Floats:
    g = 1 + 9 * x[:, 1:].mean(axis=1) ** 0.25
    f = 1 - np.exp(-4 * x[:, 0]) * np.sin(6 * np.pi * x[:, 0]) ** 6
    return -np.column_stack([f, g - f**2 / g])


PROBLEMS = {
    "zdt1": Problem(30, _zdt1, 0.876667),
    "zdt2": Problem(30, _zdt2, 0.543333),
    "zdt3": Problem(30, _zdt3, 1.32914),
    "zdt6": Problem(10, _zdt6, 0.50786),
}
