"""A genome: a point of the space that a kind of model is searched over."""

import math

from numpy.random import Generator

from clm_core.domain.search_space import Between, Choice, SearchDimension, SearchSpace

Genome = tuple[Choice, ...]
"""A value of each parameter, in the order of its space."""
DIGITS = 4
"""Significant ones of a number that is drawn or changed: it can be read, and typed."""
STEPS = 100
"""In the range of a number that is neither whole nor changed by factors."""


def default_genome(space: SearchSpace) -> Genome:
    return tuple(_typed(tuned, tuned.default) for tuned in space.values())


def random_genome(space: SearchSpace, rng: Generator) -> Genome:
    """At random, each value as likely as any other; by factors where these count."""
    return tuple(_drawn(tuned, rng) for tuned in space.values())


def params_of(space: SearchSpace, genome: Genome) -> dict[str, Choice]:
    """By name."""
    return dict(zip(space, genome, strict=True))


def is_inside(space: SearchSpace, genome: Genome) -> bool:
    """Whether every value is one that may be tried, and of its parameter's type."""
    return len(genome) == len(space) and all(map(_is_possible, space.values(), genome))


def step(tuned: SearchDimension) -> float:
    """The least that a number is changed by."""
    values = tuned.values
    assert isinstance(values, Between)
    if tuned.whole:
        return 1.0
    return 0.0 if values.log else (values.high - values.low) / STEPS


def nearest(tuned: SearchDimension, number: float) -> int | float:
    """The value that may be tried and is next to a number."""
    values = tuned.values
    assert isinstance(values, Between)
    if tuned.whole:
        return min(max(round(number), math.ceil(values.low)), math.floor(values.high))
    return float(min(max(float(f"{number:.{DIGITS}g}"), values.low), values.high))


def _drawn(tuned: SearchDimension, rng: Generator) -> Choice:
    values = tuned.values
    if not isinstance(values, Between):
        return values.choices[rng.integers(len(values.choices))]
    # half a step more on either side: the first and the last whole number are as likely as others
    margin = 0.5 if tuned.whole else 0.0
    low, high = values.low - margin, values.high + margin
    if values.log:
        return nearest(tuned, math.exp(rng.uniform(math.log(low), math.log(high))))
    return nearest(tuned, rng.uniform(low, high))


def _typed(tuned: SearchDimension, value: Choice) -> Choice:
    if not isinstance(tuned.values, Between):
        return value
    return int(value) if tuned.whole else float(value)


def _is_possible(tuned: SearchDimension, value: Choice) -> bool:
    values = tuned.values
    if not isinstance(values, Between):
        return any(value == choice and type(value) is type(choice) for choice in values.choices)
    wanted = int if tuned.whole else float
    return type(value) is wanted and values.low <= value <= values.high
