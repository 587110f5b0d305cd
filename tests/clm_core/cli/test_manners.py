"""Manners of every command, by a walk through the tree of commands."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from clm_core.cli import exit_codes
from clm_core.cli.app import app
from clm_core.cli.command_groups import GROUPS, OTHERS
from clm_core.cli.exit_codes import ExitCode

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "command-line.md"

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


ROOT: Any = typer.main.get_command(app)
COMMANDS = dict(commands(ROOT))
GROUP_NAMES = [name for name, command in ROOT.commands.items() if getattr(command, "commands", None)]


def test_every_command_that_prints_facts_takes_json() -> None:
    without = {
        name
        for name, command in COMMANDS.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == set(WITHOUT_JSON)


@pytest.mark.parametrize("name", ["", *GROUP_NAMES], ids=lambda name: name or "clm")
def test_no_line_of_the_lists_of_commands_is_cut_off_at_80_columns(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "80"}).stdout
    assert not [line for line in shown.splitlines() if line.endswith("...") and "Usage:" not in line]
    assert max(map(len, shown.splitlines())) <= 80


def test_every_command_stands_under_one_heading_of_the_help_in_a_line() -> None:
    listed = [name for lines in GROUPS.values() for name in lines]
    visible = [name for name, command in ROOT.commands.items() if not command.hidden]
    assert sorted(listed) == sorted(visible)
    lines = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout.splitlines()
    assert OTHERS not in lines
    assert {name for line in lines for name in line.split()[:1] if name in listed} == set(listed)
    assert len([line for line in lines if line.startswith("  ")]) <= len(listed) + 10


def test_the_page_lists_the_exit_codes_of_the_commands() -> None:
    rows = re.findall(r"^\| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert list(map(int, rows)) == [0, *ExitCode]


def test_commands_exit_with_the_codes_of_the_page_or_of_another_program() -> None:
    for file in sorted(Path(exit_codes.__file__).parent.glob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in {"sys.exit", "typer.Exit"}:
                [code] = map(ast.unparse, call.args)
                assert code == "done.returncode" or "ExitCode." in code, f"{file.name}: {code}"


@pytest.mark.parametrize("arguments", [["promot"], ["jobs", "--statuss"], ["promote", "no-version"]])
def test_wrong_usage_exits_with_its_code_before_anything_is_done(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == ExitCode.USAGE
