"""Settings file of a home, made by `clm init`: written with all defaults as comments, or moved."""

import json
import os
import re
from pathlib import Path

from clm_core.domain.errors import AlreadyExists, SettingsError, StackRunning
from clm_core.domain.setting_keys import Key, dotted, value_at
from clm_core.platform import stack_state
from clm_core.platform.private_files import secure_home
from clm_core.platform.settings_file import (
    CONFIG_VARIABLE,
    FILE,
    HOME_VARIABLE,
    absolute_home,
    home_in_force,
    read_tables,
    with_absolute_paths,
)
from clm_core.platform.settings_template import commented_settings
from clm_core.platform.stack_settings import StackSettingsRecord
from clm_core.settings import PATHS, Settings, settings_file

NOT_IN_FILE = frozenset({"home", "fault"})
"""Settings without a place in the file: CLM_HOME names the home, crash tests set the fault."""


def write_settings() -> str:
    """Write the commented settings file of the home in force.

    Returns:
        A sentence that names the file.

    Raises:
        AlreadyExists: the home has a settings file, or takes its settings from a file elsewhere.
        StackRunning: the running stack takes its settings from a file elsewhere.
    """
    home = home_in_force()
    file = _free_place(home)
    record = StackSettingsRecord.read(home)
    if record is not None and record.file is not None:
        raise StackRunning(
            f"The running stack reads {record.file}: `clm down`, then `clm init --from {record.file}`."
        )
    if (other := settings_file()) is not None:
        raise AlreadyExists(
            f"The settings of this home come from {other}: `clm init --from {other}` moves the file."
        )
    _write(file, commented_settings(Settings, leave_out=NOT_IN_FILE))
    return f"Wrote {file}: every setting with its default, as a comment."


def move_settings(source: Path) -> list[str]:
    """Move a settings file into the home; relative paths become absolute, a line with the home is dropped.

    The home is that of CLM_HOME, else that of the file. The former file is removed once the new file has the
    same contents.

    Returns:
        Sentences about the changes.

    Raises:
        AlreadyExists: the home has a settings file.
        SettingsError: the file cannot be read, or a path has to be rewritten by hand.
        StackRunning: `clm up` runs, whose parts read the file.
    """
    source = source.expanduser().absolute()
    before = read_tables(source)
    home = _home_of(before, source)
    if stack_state.running(home) is not None:
        raise StackRunning(f"`clm up` of {home} reads the settings: `clm down` first, then move the file.")
    file = _free_place(home)
    text = source.read_text(encoding="utf-8")
    names_home = "home" in before
    changes = []
    for key in [key for key in PATHS if key != ("home",)]:
        path = value_at(before, key)
        if isinstance(path, str) and not Path(path).is_absolute():
            absolute = str(source.parent / Path(path).expanduser())
            text = _with_path(text, key, path, absolute)
            changes.append(f"{dotted(key)} is now {absolute}.")
    if names_home:
        text = re.sub(
            r"(?m)^(\s*home\s*=)", r"# moved into the home, which CLM_HOME names: \1", text, count=1
        )
    _write(file, text)
    _require_moved(before, source, file)
    source.unlink()
    changes.append(f"Moved {source} to {file}.")
    if names_home and HOME_VARIABLE not in os.environ:
        changes.append(f"Set {HOME_VARIABLE}={home} from now on: no file names the home any more.")
    if CONFIG_VARIABLE in os.environ:
        changes.append(f"Unset {CONFIG_VARIABLE}: the home's file is found without it.")
    return changes


def _home_of(values: dict[str, object], source: Path) -> Path:
    named = values.get("home")
    if HOME_VARIABLE in os.environ or not isinstance(named, str):
        return home_in_force()
    return absolute_home(source.parent / Path(named).expanduser())


def _free_place(home: Path) -> Path:
    file = home / FILE
    if os.path.lexists(file):
        raise AlreadyExists(f"{file} exists and was left as it is.")
    return file


def _with_path(text: str, key: Key, path: str, absolute: str) -> str:
    """The text with a path rewritten, where the assignment stands on one line."""
    assignment = re.compile(
        rf"(?m)^(\s*(?:{key[-1]}|{re.escape(dotted(key))})\s*=\s*)(['\"]){re.escape(path)}\2"
    )
    return assignment.sub(lambda match: f"{match[1]}{json.dumps(absolute)}", text)


def _write(file: Path, text: str) -> None:
    secure_home(file.parent)
    # created privately, since settings may hold secrets
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as output:
        output.write(text)


def _require_moved(before: dict[str, object], source: Path, file: Path) -> None:
    expected = with_absolute_paths(before, PATHS, source.parent)
    expected.pop("home", None)
    if read_tables(file) != expected:
        file.unlink()
        raise SettingsError(
            f"The relative paths or the home in {source} could not be rewritten: write absolute paths, "
            "remove the line with the home, and try again. Nothing was changed."
        )
