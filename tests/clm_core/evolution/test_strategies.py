"""Search space over several families of rule strategies."""

from itertools import pairwise

import numpy as np
import pytest

from clm_core.domain.vocabulary import CandidateOrigin, RuleFamily
from clm_core.evolution.nsga2 import ORIGINS, SearchRules, search
from clm_core.evolution.strategies import FAMILY, Strategy, StrategySpace
from clm_core.market.bars import Floats
from clm_core.models.strategies.families import RULES

EVERY = StrategySpace(list(RULES.values()))
ALONE = StrategySpace([RULES[RuleFamily.MOMENTUM]])
spaces = pytest.mark.parametrize("space", [EVERY, ALONE], ids=["every family", "one family"])


@spaces
def test_rows_and_strategies_are_inverse(space: StrategySpace) -> None:
    values = space.genes.random(200, np.random.default_rng(3))
    strategies = space.strategies(values)
    assert np.array_equal(space.rows(strategies), values)
    for strategy in strategies:
        RULES[strategy.family].params.parse(strategy.params)
    assert {each.family for each in strategies} == ({*RULES} if space is EVERY else {RuleFamily.MOMENTUM})


def test_the_space_of_one_family_is_its_own() -> None:
    assert dict(ALONE.space) == dict(RULES[RuleFamily.MOMENTUM].params.search_space())


def test_genes_of_other_families_have_their_defaults() -> None:
    values = EVERY.genes.random(50, np.random.default_rng(4))
    foreign = list(EVERY.space).index("momentum.look_back")
    changed = values.copy()
    changed[:, foreign] = 7.0
    momentum = values[:, list(EVERY.space).index(FAMILY)] == 0
    assert 0 < momentum.sum() < 50
    same = (EVERY.genes.nearest(changed) == values).all(axis=1)
    assert np.array_equal(same, ~momentum)


def test_families_share_the_gene_of_a_parameter_with_the_same_range() -> None:
    [first, *others] = EVERY.defaults
    stop = Strategy(first.family, {**first.params, "stop_loss": 0.05})
    row = EVERY.rows([stop])
    row[0, 0] = len(others)
    [child] = EVERY.strategies(EVERY.genes.nearest(row))
    assert child == Strategy(others[-1].family, {**others[-1].params, "stop_loss": 0.05})


@spaces
def test_defaults_are_inside_the_space(space: StrategySpace) -> None:
    rows = space.rows(space.defaults)
    assert np.array_equal(space.genes.nearest(rows), rows)
    for family, params in space.defaults:
        defaults = RULES[family].defaults.model_dump()
        assert params == {name: defaults[name] for name in params}


def test_fixed_parameters_are_not_searched_for() -> None:
    space = StrategySpace([RULES[RuleFamily.MOMENTUM]], {"stop_loss": "none"})
    assert "stop_loss" not in space.space
    assert all("stop_loss" not in each.params for each in space.defaults)


@spaces
def test_a_search_with_an_elite_keeps_the_best_tenth_and_replaces_the_rest(space: StrategySpace) -> None:
    def height(values: Floats) -> Floats:
        # the fewer bars a trade is held, the better
        return -values[:, [list(space.space).index("max_holding")]]

    rules = SearchRules(20, 10, seed=1, elite_share=0.1)
    generations = list(search(space.genes, rules, height, space.rows(space.defaults)))
    for before, after in pairwise(generations):
        assert len(after.new_genes) == 18
        best = np.sort(before.scores[:, 0])[-2:]
        assert np.isin(best, after.scores[:, 0]).all()
        kept = {row.tobytes() for row in before.genes} & {row.tobytes() for row in after.genes}
        assert len(kept) == 2
    assert generations[-1].scores.mean() > generations[0].scores.mean()


@spaces
def test_origins_say_how_each_candidate_came_to_be(space: StrategySpace) -> None:
    rules = SearchRules(20, 5, seed=1, crossover_share=0.5)
    founders = space.rows(space.defaults)
    first, *later = search(space.genes, rules, lambda values: values[:, :2], founders)
    origins = [ORIGINS[place] for place in first.new_origins]
    assert origins == [CandidateOrigin.MANUAL] * len(founders) + [CandidateOrigin.RANDOM] * (
        20 - len(founders)
    )
    bred = [ORIGINS[place] for each in later for place in each.new_origins]
    assert {CandidateOrigin.MUTATION, CandidateOrigin.CROSSOVER} <= set(bred)
