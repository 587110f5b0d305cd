"""Commands compare their settings with those of the running stack."""

import re
from pathlib import Path

from clm_core import cli

WITHOUT_COMPARISON = {
    # compares, for all other commands
    "settings_in_force.py",
    # finds the files with own features before any command
    "app.py",
    # start, stop and show the stack; `clm deploy` compares in its own process
    "stack.py",
    # use the path of the home alone
    "data.py",
    "data_replace.py",
    # names a source of bars, which a command of the data reads
    "bar_sources.py",
    # restores a home in which nothing runs
    "backup.py",
}


def test_every_command_that_uses_settings_compares_them_with_the_running_stacks() -> None:
    modules = Path(str(cli.__file__)).parent.glob("*.py")
    loading = {file.name for file in modules if re.search(r"\bload_settings\(\)", file.read_text())}
    assert loading - WITHOUT_COMPARISON == set()
