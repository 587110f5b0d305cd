"""Renamed settings: values under a former name move to the new name, with a warning, for one release."""

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from clm_core.domain.errors import DeprecatedSetting, SettingsError
from clm_core.domain.setting_keys import Key, dotted, value_at, variable, variable_given

RENAMED: Mapping[Key, Key] = {
    ("upkeep", "verify_minutes"): ("maintenance", "verify_minutes"),
    ("training", "apart"): ("training", "isolated"),
}
"""Former names of settings and the names to use now."""

Equal = Callable[[Key, Any, Any], bool]
"""True if two values of a setting are equal as parsed: the variable "5" equals 5.0 in the file."""


def accept_old_names(
    by_variable: dict[str, Any], by_file: dict[str, Any], file: object, is_equal: Equal
) -> None:
    """Move values given under a former name to the new name, with a warning.

    Args:
        file: name of the settings file in messages.

    Raises:
        SettingsError: the former and the new name have different values.
    """
    for old, new in RENAMED.items():
        given = {
            label: (values, value)
            for label, values, value in (
                (variable(old), by_variable, _take_variable(by_variable, old)),
                (f"{dotted(old)} in {file}", by_file, _take(by_file, old)),
            )
            if value is not None
        }
        stated = [value for values in (by_variable, by_file) if (value := value_at(values, new)) is not None]
        for label, (values, value) in given.items():
            name = variable(new) if values is by_variable else dotted(new)
            if not all(is_equal(new, value, other) for other in stated):
                raise SettingsError(
                    f"{label} is a former name of {name} and has another value: keep {name} only."
                )
            warnings.warn(
                f"{label} is now {name}: rename it, the former name is accepted in this release only.",
                DeprecatedSetting,
                stacklevel=2,
            )
            group = values.setdefault(new[0], {})
            if isinstance(group, dict):
                group[new[1]] = value


def _take_variable(by_variable: dict[str, Any], key: Key) -> str | None:
    _take(by_variable, key)
    name = variable_given(os.environ, key)
    return None if name is None else os.environ[name]


def _take(values: dict[str, Any], key: Key) -> Any:
    """Removes a value, and the group left empty by the removal."""
    group, name = key
    if not isinstance(values.get(group), dict):
        return None
    value = values[group].pop(name, None)
    if not values[group]:
        del values[group]
    return value
