"""Renamed settings: values under a former name move to the new name, with a warning, for one release."""

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from clm_core.domain.errors import DeprecatedSetting, SettingsError
from clm_core.domain.setting_keys import Key, dotted, value_at, variable, variable_given
from clm_core.domain.training_settings import TrainingPlace


def place_of(isolated: Any) -> Any:
    """Place of a training by the value of a former setting; a value that is no boolean stays as it is."""
    try:
        own_process = TypeAdapter(bool).validate_python(isolated)
    except ValidationError:
        return isolated
    return (TrainingPlace.SUBPROCESS if own_process else TrainingPlace.INLINE).value


RENAMED: Mapping[Key, Key] = {
    ("upkeep", "verify_minutes"): ("maintenance", "verify_minutes"),
    ("training", "apart"): ("training", "where"),
    ("training", "isolated"): ("training", "where"),
}
"""Former names of settings and the names to use now."""
CONVERTED: Mapping[Key, Callable[[Any], Any]] = {
    ("training", "apart"): place_of,
    ("training", "isolated"): place_of,
}
"""Values to use now, by the former name of settings whose values have changed, too."""

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
        for label, (values, former) in given.items():
            name = variable(new) if values is by_variable else dotted(new)
            value = CONVERTED[old](former) if old in CONVERTED else former
            if not all(is_equal(new, value, other) for other in stated):
                raise SettingsError(
                    f"{label} is a former name of {name} and has another value: keep {name} only."
                )
            now = f"{name} = {value}: write that" if old in CONVERTED else f"{name}: rename it"
            warnings.warn(
                f"{label} is now {now}, the former name is accepted in this release only.",
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
