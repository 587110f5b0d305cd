"""Variants of the parameters of a weak version."""

import math
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.domain.search_space import Between, OneOf, SearchDimension
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.evolution.proposals import VARIANTS, best_variant, propose_variants, seed_of
from clm_core.models import catalog
from clm_core.models.strategies.families import RULES

SEED = seed_of("momentum_btcusd_1h", "v20260304_120000", date(2026, 3, 5))


def of_rule(family: RuleFamily, seed: int = SEED, **own: Any) -> list[dict[str, Any]]:
    params = RULES[family].defaults.model_dump() | own
    return propose_variants(RULES[family].params.search_space(), params, is_rule=True, seed=seed)


def test_a_strategy_is_varied_by_a_longer_look_back_a_tighter_stop_and_a_lower_threshold() -> None:
    changes = of_rule(RuleFamily.MOMENTUM, look_back=20, stop_loss=0.03, threshold=0.02)
    assert changes[:3] == [{"look_back": 30}, {"stop_loss": 0.02}, {"threshold": 0.015}]
    assert len(changes) == VARIANTS


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"look_back": 10, "stop_loss": 0.06, "threshold": 0.04}, [15, 0.04, 0.03]),
        ({"look_back": 200, "stop_loss": 0.012, "threshold": 0.0025}, [240, 0.01, 0.002]),
    ],
    ids=["own values", "clipped to the range"],
)
def test_the_variants_scale_the_own_values_of_the_version(own: dict[str, Any], expected: list[float]) -> None:
    changes = of_rule(RuleFamily.MOMENTUM, **own)
    assert [next(iter(each.values())) for each in changes[:3]] == expected


@pytest.mark.parametrize(
    ("own", "absent"),
    [
        ({"look_back": 400}, "look_back"),
        ({"stop_loss": None}, "stop_loss"),
        ({"threshold": 0.0}, "threshold"),
    ],
    ids=["above the range", "switched off", "zero"],
)
def test_a_value_that_cannot_go_further_has_no_scaled_variant(own: dict[str, Any], absent: str) -> None:
    names = {"look_back", "stop_loss", "threshold"}
    scaled = [set(each) for each in of_rule(RuleFamily.MOMENTUM, **own)[:2]]
    assert scaled == [{name} for name in ("look_back", "stop_loss", "threshold") if name != absent]
    assert names - set.union(*scaled) == {absent}


@pytest.mark.parametrize("family", RuleFamily)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_variants_of_a_family_are_distinct_and_change_numbers_by_a_fifth_at_most(
    family: RuleFamily, seed: int
) -> None:
    own = RULES[family].defaults.model_dump()
    space = RULES[family].params.search_space()
    changes = of_rule(family, seed)
    for each in changes:
        assert each
        assert changes.count(each) == 1
        for name, value in each.items():
            values = space[name].values
            assert isinstance(values, Between)
            assert min(values.low, own[name]) <= value <= max(values.high, own[name])
            assert type(value) is (int if space[name].whole else float)
    mutants = [each for each in changes if each not in of_rule(family, seed + 1)]
    for each in mutants:
        for name, value in each.items():
            values = space[name].values
            assert isinstance(values, Between)
            step = 1.0 if space[name].whole else (values.high - values.low) / 100
            # rounded to four digits, or to a whole number
            rounding = 0.5 if space[name].whole else 1e-3 * abs(value)
            assert abs(value - own[name]) <= max(0.2 * abs(own[name]), step) + rounding


def test_a_model_has_mutated_training_parameters_alone() -> None:
    space = catalog.search_space(ModelType.LIGHTGBM)
    own = {name: dimension.default for name, dimension in space.items()}
    changes = propose_variants(space, own, is_rule=False, seed=SEED)
    assert len(changes) == VARIANTS
    assert all(0 < len(each) < len(space) for each in changes)


def test_the_variants_follow_from_version_and_day() -> None:
    assert of_rule(RuleFamily.BREAKOUT) == of_rule(RuleFamily.BREAKOUT)
    tomorrow = seed_of("momentum_btcusd_1h", "v20260304_120000", date(2026, 3, 6))
    assert of_rule(RuleFamily.BREAKOUT, tomorrow)[3:] != of_rule(RuleFamily.BREAKOUT)[3:]


def test_a_space_with_few_points_gives_fewer_variants_and_an_empty_one_none() -> None:
    space = {"kind": SearchDimension(OneOf(("a", "b")), whole=False, default="a")}
    assert propose_variants(space, {"kind": "a"}, is_rule=False, seed=1) == [{"kind": "b"}]
    assert propose_variants(space, {"kind": None}, is_rule=False, seed=1) == []


@pytest.mark.parametrize(
    ("own", "fitness", "best"),
    [
        (0.4, [0.1, 0.9, None, 0.9], 1),
        (-2.0, [-1.5, -1.0], 1),
        (0.9, [0.1, 0.9], None),
        (None, [0.1, 0.9], None),
        (math.nan, [0.1, 0.9], None),
        (0.1, [None, math.nan], None),
        (0.1, [], None),
    ],
)
def test_the_best_variant_has_a_higher_fitness_than_the_own_parameters(
    own: float | None, fitness: list[float | None], best: int | None
) -> None:
    assert best_variant(own, fitness) == best
