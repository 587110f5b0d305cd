"""Keys of settings: spelling in the file and as a variable, types, hints for misspelt names."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, SecretStr

Key = tuple[str, ...]
"""Path of a setting: ("costs", "fee_bps") is fee_bps under [costs], or CLM_COSTS__FEE_BPS."""


def fields(group: type[BaseModel], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Key and type of every setting; the settings of nested groups follow one another."""
    for name, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, (*above, name))
        else:
            yield (*above, name), field.annotation


def variable(key: Key) -> str:
    """Name of the environment variable of a setting."""
    return "CLM_" + "__".join(key).upper()


def dotted(key: Key) -> str:
    """Name of a setting in messages: `costs.fee_bps`."""
    return ".".join(key)


def variable_given(environment: Mapping[str, str], key: Key) -> str | None:
    """Name, as spelt in the environment, of the variable that sets a key, if any does."""
    return next((name for name in environment if name.upper() == variable(key)), None)


def value_at(values: Mapping[str, Any], key: Key) -> Any:
    """Value of a key in nested tables; None where a table or the value is missing."""
    value: Any = values
    for name in key:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def is_secret(annotation: Any) -> bool:
    """True if values of the type hold a secret, also deep inside of a list or table."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(is_secret(field.annotation) for field in annotation.model_fields.values())
    return annotation is SecretStr or any(map(is_secret, get_args(annotation)))


def hint(name: str, valid: list[str], renamed: Mapping[str, str]) -> str:
    """The closest valid name, and all valid names.

    Args:
        renamed: new names by former name.
    """
    # for a mistake alone
    from difflib import get_close_matches

    [match] = get_close_matches(name, [*valid, *renamed], n=1, cutoff=0.0)
    closest = renamed.get(match, match)
    return f"did you mean {closest}? Valid are {', '.join(sorted(valid))}."
