"""Declaration of an own feature: the decorator above a user's function."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Function = Callable[..., Any]
"""A function of the bars of an unbroken stretch, and of own series if it declares any; one number for each
bar."""

NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
MAX_MEMORY = 100_000


@dataclass(frozen=True)
class DeclaredFeature:
    """A function declared as a feature; called like the function itself."""

    function: Function
    name: str
    warm_up: int
    """Number of bars of a stretch before the first value."""
    memory: int
    """Bars before a bar from which on earlier bars no longer change the value."""
    description: str
    series: tuple[str, ...] = ()
    """Own series, passed to the function as the second argument: values by name."""

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    @property
    def function_name(self) -> str:
        return str(getattr(self.function, "__name__", self.name))

    @property
    def signature(self) -> str:
        """Declared properties with an influence on the values."""
        return "|".join([self.name, str(self.warm_up), str(self.memory), *self.series])


def feature(
    *,
    warm_up: int,
    memory: int | None = None,
    name: str | None = None,
    description: str | None = None,
    series: Sequence[str] = (),
) -> Callable[[Function], DeclaredFeature]:
    """Declare a function of bars as a feature that models select by name.

    Args:
        warm_up: number of bars of an unbroken stretch before the first value.
        memory: bars before a bar from which on earlier bars no longer change the value, for functions that
            remember more than their warm-up, such as exponential averages; default: the warm-up.
        name: default: the name of the function.
        description: formula in words; default: the first line of the docstring.
        series: names of own series: the function is then called with bars and a mapping of these names to
            values, one for each bar, NaN where no value was known at its close. The feature may be NaN there.

    Raises:
        ValueError: the name or a number is out of range.
    """

    def declare(function: Function) -> DeclaredFeature:
        chosen = name or str(getattr(function, "__name__", ""))
        _require_valid(chosen, warm_up, warm_up if memory is None else memory)
        lines = (getattr(function, "__doc__", None) or "").strip().splitlines()
        return DeclaredFeature(
            function=function,
            name=chosen,
            warm_up=warm_up,
            memory=warm_up if memory is None else memory,
            description=description or (lines[0].strip() if lines else ""),
            series=tuple(series),
        )

    return declare


def _require_valid(name: str, warm_up: int, memory: int) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a feature: use at most 60 lower-case letters, digits and _, beginning "
            'with a letter, or pass name="..."'
        )
    if not 0 <= warm_up <= memory <= MAX_MEMORY:
        raise ValueError(
            f"{name}: warm_up={warm_up} and memory={memory}; required are 0 <= warm_up <= memory <= "
            f"{MAX_MEMORY:,}"
        )
