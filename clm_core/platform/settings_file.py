"""Settings file of a home: `clm.toml` in the home folder, or the file that CLM_CONFIG names.

A home has one settings file; a symbolic link in the home lets the file live elsewhere. A second file with
other contents is refused, because the same home would be run under two sets of settings. A `clm.toml` in the
current folder is accepted for one release where the home has no file.
"""

import os
import tomllib
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from clm_core.domain.errors import DeprecatedSetting, SettingsError
from clm_core.domain.setting_keys import Key, dotted, value_at
from clm_core.platform import home_record

CONFIG_VARIABLE = "CLM_CONFIG"
HOME_VARIABLE = "CLM_HOME"
FILE = "clm.toml"
DEFAULT_HOME = Path(".clm")
HOME: Key = ("home",)


class FoundBy(StrEnum):
    """Rule by which a settings file was found."""

    HOME = "home"
    """`clm.toml` in the home folder, or the target of a link there."""
    VARIABLE = "CLM_CONFIG"
    FOLDER = "current folder"
    """`clm.toml` in the current folder; accepted for one release."""


@dataclass(frozen=True)
class SettingsFile:
    """A settings file as read."""

    path: Path
    """Absolute path; relative paths in the file start at its folder."""
    found_by: FoundBy
    values: Mapping[str, Any]
    """Tables of the file, with absolute paths."""


@dataclass(frozen=True)
class SettingsPlace:
    """The home in force, and its settings file."""

    home: Path
    file: SettingsFile | None
    """None for a home without a settings file: variables and defaults hold."""

    @property
    def file_name(self) -> str:
        """Name of the file for messages."""
        return "no settings file" if self.file is None else str(self.file.path)


def place(paths: Collection[Key], home: Path | None = None) -> SettingsPlace:
    """Home and settings file of a command, as variables and current folder name them.

    Args:
        paths: keys of the settings whose values are paths.
        home: the home, where the caller has chosen one.

    Raises:
        SettingsError: a file cannot be read, two files differ, or the home's file names a home.
    """
    chosen = home_in_force() if home is None else absolute_home(home)
    own = chosen / FILE
    named = os.environ.get(CONFIG_VARIABLE)
    beside = Path(FILE).absolute()
    if os.path.lexists(own):
        file = _own(own, paths)
        if named is not None and not _is_same(own, Path(named)):
            _require_equal(file, _read(Path(named), FoundBy.VARIABLE, paths))
        elif named is None and os.path.lexists(beside) and not _is_same(own, beside):
            _require_equal_beside(file, beside, paths)
        return SettingsPlace(chosen, file)
    if named is not None:
        _refuse_file_of_another_home(Path(named), chosen)
        return SettingsPlace(chosen, _read(Path(named), FoundBy.VARIABLE, paths))
    if os.path.lexists(beside) and not _is_of_a_home(beside):
        file = _read(beside, FoundBy.FOLDER, paths)
        warnings.warn(
            f"The settings come from {beside} in the current folder, accepted in this release only: "
            f"`clm init --from {FILE}` moves the file into the home {chosen}.",
            DeprecatedSetting,
            stacklevel=2,
        )
        return SettingsPlace(chosen, file)
    return SettingsPlace(chosen, None)


def home_in_force() -> Path:
    """Home named by CLM_HOME, else by an explicit or former settings file, else `.clm` in the current folder.

    Raises:
        SettingsError: the file that may name the home cannot be read.
    """
    if home := next((value for name, value in os.environ.items() if name.upper() == HOME_VARIABLE), None):
        return absolute_home(Path(home))
    named = os.environ.get(CONFIG_VARIABLE)
    beside = Path(FILE).absolute()
    if named is not None:
        file = _read(Path(named), FoundBy.VARIABLE, [HOME])
    elif os.path.lexists(beside):
        if _is_of_a_home(beside):
            raise SettingsError(
                f"The current folder {beside.parent} is a home: set CLM_HOME={beside.parent}."
            )
        file = _read(beside, FoundBy.FOLDER, [HOME])
    else:
        return absolute_home(DEFAULT_HOME)
    home = file.values.get("home")
    return absolute_home(Path(home) if isinstance(home, str) else DEFAULT_HOME)


def absolute_home(home: Path) -> Path:
    """Path of a home in its one spelling: MLflow refuses locations with `..`."""
    absolute = home.expanduser().absolute()
    return absolute.resolve() if ".." in absolute.parts else absolute


def read_tables(file: Path) -> dict[str, Any]:
    """Tables of a TOML file.

    Raises:
        SettingsError: the file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"The settings file {file} cannot be read ({error.strerror}): put it back, or name another."
        ) from error
    except ValueError as error:
        raise SettingsError(f"The settings file {file} is not valid TOML: {error}.") from error


def with_absolute_paths(values: dict[str, Any], paths: Collection[Key], folder: Path) -> dict[str, Any]:
    """The tables, with relative values of path settings joined to a folder; changes the tables in place."""
    for *groups, name in paths:
        table = value_at(values, tuple(groups)) if groups else values
        if not isinstance(table, dict):
            continue
        value = table.get(name)
        if isinstance(value, str):
            table[name] = str(folder / Path(value).expanduser())
        elif isinstance(value, list):
            table[name] = [
                str(folder / Path(each).expanduser()) if isinstance(each, str) else each for each in value
            ]
    return values


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Dotted names of the settings that differ between two files; the home's own path is none."""
    values = dict(_leaves(one)), dict(_leaves(other))
    keys = sorted(values[0].keys() | values[1].keys())
    return [dotted(key) for key in keys if key != HOME and values[0].get(key) != values[1].get(key)]


def _leaves(table: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _read(path: Path, found_by: FoundBy, paths: Collection[Key]) -> SettingsFile:
    absolute = path.expanduser().absolute()
    file = absolute.resolve() if absolute.is_symlink() else absolute
    return SettingsFile(file, found_by, with_absolute_paths(read_tables(file), paths, file.parent))


def _own(path: Path, paths: Collection[Key]) -> SettingsFile:
    file = _read(path, FoundBy.HOME, paths)
    if "home" in file.values:
        raise SettingsError(
            f"home in {file.path} is not allowed, because the file belongs to the home {path.parent}: "
            f"remove the line; CLM_HOME names the home of a command."
        )
    return file


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other.expanduser())
    except OSError:
        return False


def _is_of_a_home(file: Path) -> bool:
    return (file.parent / home_record.FILE).exists()


def _refuse_file_of_another_home(file: Path, home: Path) -> None:
    folder = file.expanduser().absolute().parent
    if file.name == FILE and _is_of_a_home(folder / FILE):
        raise SettingsError(
            f"{CONFIG_VARIABLE} names the settings file of the home {folder}, and the home in force is "
            f"{home}: set CLM_HOME={folder}, or unset {CONFIG_VARIABLE}."
        )


def _require_equal(own: SettingsFile, named: SettingsFile) -> None:
    if names := differing(own.values, named.values):
        raise SettingsError(
            f"{CONFIG_VARIABLE} names {named.path}, and the home has {own.path} with other settings: "
            f"{', '.join(names)}. A home has one settings file: unset {CONFIG_VARIABLE}, or bring the files "
            "in line."
        )


def _require_equal_beside(own: SettingsFile, beside: Path, paths: Collection[Key]) -> None:
    """A file in the folder of another home is no former settings file."""
    if _is_of_a_home(beside):
        return
    if names := differing(own.values, _read(beside, FoundBy.FOLDER, paths).values):
        raise SettingsError(
            f"The current folder has {beside}, and the home has {own.path} with other settings: "
            f"{', '.join(names)}. The home's file is in force from now on: take over what is right, then "
            f"remove {beside}."
        )
