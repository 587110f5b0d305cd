"""Search space of training parameters: the values a tuning or an evolution may try."""

from collections.abc import Mapping
from dataclasses import dataclass

Choice = str | int | float | bool


@dataclass(frozen=True)
class Between:
    """A tuning tries numbers from `low` to `high`, both included; whole ones where the parameter is whole."""

    low: float
    high: float
    log: bool = False
    """Whether factors count rather than steps: 0.01 to 0.1 is tried as often as 0.1 to 1."""


@dataclass(frozen=True)
class OneOf:
    """A tuning tries these values."""

    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Tuned:
    """What a tuning tries of one parameter."""

    values: Between | OneOf
    whole: bool
    default: Choice


SearchSpace = Mapping[str, Tuned]
"""By name of the parameter."""
