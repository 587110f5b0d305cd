"""Search space of training parameters: the values a tuning or an evolution may try."""

from collections.abc import Mapping
from dataclasses import dataclass

Choice = str | int | float | bool


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`, both included; integers where the parameter is an integer."""

    low: float
    high: float
    log: bool = False
    """True for a logarithmic scale: 0.01 to 0.1 is tried as often as 0.1 to 1."""


@dataclass(frozen=True)
class OneOf:
    """A list of values."""

    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class SearchDimension:
    """Search range of one parameter."""

    values: Between | OneOf
    whole: bool
    """True for an integer parameter."""
    default: Choice


SearchSpace = Mapping[str, SearchDimension]
"""Search dimensions by parameter name."""
