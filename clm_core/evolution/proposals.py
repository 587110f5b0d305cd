"""Variants of the parameters of a weak production version, to be measured beside the version's own.

A rule strategy has three variants that scale the version's own values, as 20 bars become 30, a stop of 3 %
becomes 2 % and a threshold of 2 % becomes 1.5 %; mutants of the own parameters follow. Other kinds have
mutants alone. Values stay inside the search range, widened to the own value where that lies outside.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import chain
from typing import Any

import numpy as np
from numpy.random import Generator

from clm_core.domain.search_space import Between, Choice, SearchDimension, SearchSpace
from clm_core.evolution.genome import nearest, params_of
from clm_core.evolution.operators import uniform_mutation

VARIANTS = 8
"""Maximum number of variants of a version."""
LOOK_BACKS = ("look_back", "exit_look_back", "range_look_back", "fast", "slow")
RULE_VARIANTS = (
    dict.fromkeys(LOOK_BACKS, 3 / 2),
    {"stop_loss": 2 / 3},
    {"threshold": 3 / 4},
)
"""Factors of the parameters of a rule strategy: longer look-backs, a tighter stop, a lower threshold."""
MAX_TRIES = 50
"""Maximum number of mutations tried for a mutant; one in two or three changes anything."""

Changes = dict[str, Choice]
"""Changed parameters of a variant, by name."""


def propose_variants(
    space: SearchSpace, own: Mapping[str, Any], *, is_rule: bool, seed: int
) -> list[Changes]:
    """Changes of at most `VARIANTS` variants, each different from the others and from the own parameters.

    Args:
        space: search space of the kind.
        own: parameters of the version, defaults included. A parameter without a value in the space, such as
            a stop that is switched off, is never changed.
        is_rule: True for a rule strategy, with scaled variants before the mutants.
        seed: seed of the mutations.
    """
    own_space = _around(space, own)
    if not own_space:
        return []
    scaled: Iterable[Changes] = _scaled(own_space, own) if is_rule else ()
    proposed = list[Changes]()
    for changes in chain(scaled, _mutants(own_space, own, np.random.default_rng(seed))):
        if len(proposed) == VARIANTS:
            break
        if changes and changes not in proposed:
            proposed.append(changes)
    return proposed


def seed_of(model_id: str, version: str, day: date) -> int:
    """Seed of the mutations for a version on a day."""
    digest = hashlib.sha256(f"{model_id}/{version}/{day.isoformat()}".encode()).digest()
    return int.from_bytes(digest[:8])


def best_variant(own: float | None, fitness: Sequence[float | None]) -> int | None:
    """Index of the variant with the highest fitness, if higher than the own; the first of equal ones.

    Args:
        own: fitness of the own parameters, measured as the variants'; None or NaN has no better variant.
        fitness: fitness of the variants; None for a variant that could not be measured.
    """
    if own is None:
        return None
    better = {index: each for index, each in enumerate(fitness) if each is not None and each > own}
    return max(better, key=better.__getitem__, default=None)


def _around(space: SearchSpace, own: Mapping[str, Any]) -> SearchSpace:
    """Parameters with an own value; ranges hold the own value."""
    return {
        name: _holding(each, own[name]) for name, each in space.items() if _has_value(each, own.get(name))
    }


def _has_value(dimension: SearchDimension, value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number if isinstance(dimension.values, Between) else value is not None


def _holding(dimension: SearchDimension, value: Any) -> SearchDimension:
    values = dimension.values
    if not isinstance(values, Between):
        return dimension
    return replace(
        dimension, values=replace(values, low=min(values.low, value), high=max(values.high, value))
    )


def _scaled(space: SearchSpace, own: Mapping[str, Any]) -> Iterator[Changes]:
    for factors in RULE_VARIANTS:
        scaled = {name: own[name] * factor for name, factor in factors.items() if name in space}
        yield _changes(own, {name: nearest(space[name], value) for name, value in scaled.items()})


def _mutants(space: SearchSpace, own: Mapping[str, Any], rng: Generator) -> Iterator[Changes]:
    """Mutations of the own parameters: each changes with a probability of 10 %, a number by up to 20 %."""
    genome = tuple(own[name] for name in space)
    for _ in range(VARIANTS * MAX_TRIES):
        yield _changes(own, params_of(space, uniform_mutation(space, genome, rng)))


def _changes(own: Mapping[str, Any], params: Mapping[str, Choice]) -> Changes:
    return {name: value for name, value in params.items() if value != own[name]}
