"""Manners of every command, by a walk through the tree of commands."""

from collections.abc import Iterator
from typing import Any

import typer

from clm_core.cli.app import app

WITHOUT_JSON = {
    "exec": "runs another program",
    "config": "prints JSON anyway",
    "init": "prints the file that was written, or the moved settings",
    "up": "serves until Ctrl-C; `clm status --json` has the facts",
    "down": "the exit code is the answer",
}
"""Commands without --json, each with the reason."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command with its words; a group counts where it is a command of its own."""
    below = getattr(group, "commands", {})
    if path and (not below or group.invoke_without_command):
        yield " ".join(path), group
    for name, command in below.items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_every_command_that_prints_facts_takes_json() -> None:
    without = {
        name
        for name, command in COMMANDS.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == set(WITHOUT_JSON)
