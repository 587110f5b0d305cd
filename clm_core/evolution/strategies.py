"""Search space of rule strategies: one family, or several with a gene for the choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clm_core.domain.search_space import Choice, OneOf, SearchDimension, SearchSpace
from clm_core.domain.vocabulary import RuleFamily
from clm_core.evolution.genes import Bools, Genes
from clm_core.evolution.genome import default_genome
from clm_core.market.bars import Floats
from clm_core.models.strategies.rules import Rule

FAMILY = "family"
"""Name of the gene that chooses the family."""


class Strategy(NamedTuple):
    """A candidate: a family with the searched parameters."""

    family: RuleFamily
    params: Mapping[str, Choice]


@dataclass(frozen=True, eq=False)
class StrategyGenes(Genes):
    """Genes of several families.

    A gene of another family is at the default: equal candidates are equal rows.
    """

    default: Floats
    """Defaults of the genes, shape (n_genes,)."""
    is_used: Bools
    """True for the genes of a family, shape (n_families, n_genes)."""

    def nearest(self, values: Floats) -> Floats:
        allowed = super().nearest(values)
        return np.where(self.is_used[allowed[:, 0].astype(np.int64)], allowed, self.default)


class StrategySpace:
    """Genes and strategies of one or several families.

    Parameters with the same name and the same range share a gene: a child of another family inherits the
    stop of the parents.
    """

    def __init__(self, rules: Sequence[Rule], fixed: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            rules: families, at least one.
            fixed: parameters outside the search.
        """
        own = {each.family: _space(each, fixed or {}) for each in rules}
        self._families = tuple(own)
        self._columns = {family: _columns(family, own) for family in own}
        space: dict[str, SearchDimension] = {}
        if len(own) > 1:
            families = OneOf(tuple(family.value for family in own))
            space[FAMILY] = SearchDimension(families, whole=False, default=families.choices[0])
        for family, columns in self._columns.items():
            space |= {columns[name]: dimension for name, dimension in own[family].items()}
        self.space: SearchSpace = space
        self.genes = self._genes()

    def strategies(self, values: Floats) -> list[Strategy]:
        """Strategies of the rows.

        Args:
            values: genes, shape (n, n_genes).
        """
        genomes = self.genes.genomes(self.space, values)
        return [self._strategy(dict(zip(self.space, each, strict=True))) for each in genomes]

    def rows(self, strategies: Sequence[Strategy]) -> Floats:
        """Genes of strategies, shape (n, n_genes): the inverse of `strategies`."""
        defaults = dict(zip(self.space, default_genome(self.space), strict=True))
        genomes = []
        for family, params in strategies:
            named = {self._columns[family][name]: value for name, value in params.items()}
            chosen = {FAMILY: family.value} if FAMILY in self.space else {}
            genomes.append(tuple((defaults | chosen | named).values()))
        return self.genes.rows(self.space, genomes)

    @property
    def defaults(self) -> list[Strategy]:
        """Each family with the default parameters."""
        return [self.defaults_of(family) for family in self._families]

    def defaults_of(self, family: RuleFamily) -> Strategy:
        """A family with the default parameters."""
        default = dict(zip(self.space, default_genome(self.space), strict=True))
        return self._strategy(default | {FAMILY: family.value})

    def _strategy(self, values: Mapping[str, Choice]) -> Strategy:
        family = RuleFamily(str(values[FAMILY])) if FAMILY in values else self._families[0]
        return Strategy(family, {name: values[column] for name, column in self._columns[family].items()})

    def _genes(self) -> Genes:
        genes = Genes.of(self.space)
        if FAMILY not in self.space:
            return genes
        defaults = genes.nearest(genes.rows(self.space, [default_genome(self.space)]))[0]
        used = [[name in (FAMILY, *own.values()) for name in self.space] for own in self._columns.values()]
        fields = {name: getattr(genes, name) for name in Genes.__dataclass_fields__}
        return StrategyGenes(**fields, default=defaults, is_used=np.array(used))


def _space(rule: Rule, fixed: Mapping[str, Any]) -> SearchSpace:
    return {name: each for name, each in rule.params.search_space().items() if name not in fixed}


def _columns(family: RuleFamily, spaces: Mapping[RuleFamily, SearchSpace]) -> dict[str, str]:
    """Names of the genes of a family's parameters: the parameter's own where all families share the gene,
    otherwise with the first family that has the same range in front."""

    def column(name: str) -> str:
        alike = [each for each, space in spaces.items() if space.get(name) == spaces[family][name]]
        return name if len(alike) == len(spaces) else f"{alike[0].value}.{name}"

    return {name: column(name) for name in spaces[family]}
