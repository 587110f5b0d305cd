"""Genes of a whole population as an array, shape (n, n_genes): a row is a candidate, a column a parameter.

A number stands for itself, a choice by its place in the list of choices.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from clm_core.domain.search_space import Between, OneOf, SearchSpace
from clm_core.evolution.genome import DIGITS, STEPS, Genome
from clm_core.market.bars import Floats

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Genes:
    """Ranges of the genes, shape (n_genes,) each."""

    low: Floats
    high: Floats
    is_whole: Bools
    """True for an integer, and for a choice."""
    is_log: Bools
    """True for a logarithmic scale."""
    is_choice: Bools
    """True for a choice of a list: places have no order."""
    step: Floats
    """Smallest change of a number by a mutation; 0 for none."""
    digits: int | None
    """Significant digits of a real number; None for all."""

    @classmethod
    def between(cls, low: Floats, high: Floats) -> Self:
        """Real numbers on a linear scale, with all digits and without a smallest change."""
        no = np.zeros(len(low), np.bool_)
        low = np.asarray(low, np.float64)
        high = np.asarray(high, np.float64)
        return cls(low, high, no, no, no, np.zeros(len(low)), None)

    @classmethod
    def of(cls, space: SearchSpace) -> Self:
        """Genes of a search space: four significant digits, changes by at least a hundredth of a linear
        range, or by 1 for an integer."""
        values = [dimension.values for dimension in space.values()]
        whole = np.array([dimension.whole for dimension in space.values()], np.bool_)
        choice = np.array([isinstance(each, OneOf) for each in values], np.bool_)
        log = np.array([isinstance(each, Between) and each.log for each in values], np.bool_)
        low = np.array([each.low if isinstance(each, Between) else 0.0 for each in values])
        high = np.array(
            [each.high if isinstance(each, Between) else len(each.choices) - 1.0 for each in values]
        )
        low = np.where(whole, np.ceil(low), low)
        high = np.where(whole, np.floor(high), high)
        step = np.where(log, 0.0, (high - low) / STEPS)
        whole |= choice
        return cls(low, high, whole, log, choice, np.where(whole, 1.0, step), DIGITS)

    def __len__(self) -> int:
        return len(self.low)

    def random(self, count: int, rng: Generator) -> Floats:
        """Uniformly random candidates, shape (count, n_genes); uniform in the logarithm where the scale is
        logarithmic."""
        # half a step more on either side: the ends are as likely as the integers between
        margin = np.where(self.is_whole, 0.5, 0.0)
        low = self.scaled(self.low - margin)
        high = self.scaled(self.high + margin)
        return self.nearest(self.unscaled(rng.uniform(low, high, (count, len(self)))))

    def scaled(self, values: Floats) -> Floats:
        """Values on the scales of the genes: logarithms where the scale is logarithmic."""
        return np.where(self.is_log, np.log(np.where(self.is_log, values, 1.0)), values)

    def unscaled(self, scaled: Floats) -> Floats:
        return np.where(self.is_log, np.exp(np.where(self.is_log, scaled, 0.0)), scaled)

    def nearest(self, values: Floats) -> Floats:
        """Allowed values nearest to some values, shape (n, n_genes)."""
        rounded = values if self.digits is None else _significant(values, self.digits)
        allowed = np.clip(np.where(self.is_whole, np.rint(values), rounded), self.low, self.high)
        # -0.0 becomes 0.0: equal rows have equal bytes
        return np.asarray(allowed + 0.0)

    def genomes(self, space: SearchSpace, values: Floats) -> list[Genome]:
        """Genomes of the rows: values of the types of the space that the genes were made of."""
        columns = []
        for dimension, column in zip(space.values(), values.T, strict=True):
            if isinstance(dimension.values, OneOf):
                choices = dimension.values.choices
                columns.append([choices[int(place)] for place in column])
            elif dimension.whole:
                columns.append([int(number) for number in column])
            else:
                columns.append(column.tolist())
        return list(zip(*columns, strict=True))

    def rows(self, space: SearchSpace, genomes: list[Genome]) -> Floats:
        """Rows of genomes, shape (n, n_genes): the inverse of `genomes`."""
        rows = [
            [
                float(each.values.choices.index(value) if isinstance(each.values, OneOf) else value)
                for each, value in zip(space.values(), genome, strict=True)
            ]
            for genome in genomes
        ]
        return np.array(rows, np.float64).reshape(len(genomes), len(self))


def _significant(values: Floats, digits: int) -> Floats:
    """Values rounded to significant digits, as close to the decimal number as float64 can be."""
    sizes = np.where(values == 0.0, 1.0, np.abs(values))
    # up to the largest power of ten that is finite
    places = np.clip(digits - 1 - np.floor(np.log10(sizes)), -300.0, 300.0)
    # powers of ten are exact, and so a division is rounded once
    up = 10.0 ** np.maximum(places, 0.0)
    down = 10.0 ** np.maximum(-places, 0.0)
    return np.asarray(np.rint(values * up / down) * down / up)
