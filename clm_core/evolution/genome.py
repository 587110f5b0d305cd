"""Genome: a point of the search space of a model type."""

import math

from numpy.random import Generator

from clm_core.domain.search_space import Between, Choice, SearchDimension, SearchSpace

Genome = tuple[Choice, ...]
"""A value for each parameter, in the order of the space."""
DIGITS = 4
"""Significant digits of a drawn or changed number, so that a person can read and type the number."""
STEPS = 100
"""Number of steps in the range of a real number on a linear scale."""


def default_genome(space: SearchSpace) -> Genome:
    return tuple(_typed(dimension, dimension.default) for dimension in space.values())


def random_genome(space: SearchSpace, rng: Generator) -> Genome:
    """A uniformly random genome; uniform in the logarithm where the scale is logarithmic."""
    return tuple(_random_value(dimension, rng) for dimension in space.values())


def params_of(space: SearchSpace, genome: Genome) -> dict[str, Choice]:
    """Values by parameter name."""
    return dict(zip(space, genome, strict=True))


def is_inside(space: SearchSpace, genome: Genome) -> bool:
    """True if every value lies in the range of the parameter and has the type of the parameter."""
    return len(genome) == len(space) and all(map(_is_possible, space.values(), genome))


def step(dimension: SearchDimension) -> float:
    """Smallest change of a number; 0 on a logarithmic scale."""
    values = dimension.values
    assert isinstance(values, Between)
    if dimension.whole:
        return 1.0
    return 0.0 if values.log else (values.high - values.low) / STEPS


def nearest(dimension: SearchDimension, number: float) -> int | float:
    """Allowed value nearest to a number."""
    values = dimension.values
    assert isinstance(values, Between)
    if dimension.whole:
        return min(max(round(number), math.ceil(values.low)), math.floor(values.high))
    return float(min(max(float(f"{number:.{DIGITS}g}"), values.low), values.high))


def _random_value(dimension: SearchDimension, rng: Generator) -> Choice:
    values = dimension.values
    if not isinstance(values, Between):
        return values.choices[rng.integers(len(values.choices))]
    # half a step more on either side: the first and the last integer are as likely as the integers between
    margin = 0.5 if dimension.whole else 0.0
    low = values.low - margin
    high = values.high + margin
    if values.log:
        return nearest(dimension, math.exp(rng.uniform(math.log(low), math.log(high))))
    return nearest(dimension, rng.uniform(low, high))


def _typed(dimension: SearchDimension, value: Choice) -> Choice:
    if not isinstance(dimension.values, Between):
        return value
    return int(value) if dimension.whole else float(value)


def _is_possible(dimension: SearchDimension, value: Choice) -> bool:
    values = dimension.values
    if not isinstance(values, Between):
        return any(value == choice and type(value) is type(choice) for choice in values.choices)
    expected = int if dimension.whole else float
    return type(value) is expected and values.low <= value <= values.high
