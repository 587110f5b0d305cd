"""How the commands are told things and print: tables for people, JSON for scripts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pydantic import ValidationError


def _console(**options: Any) -> Console:
    made = Console(**options)
    if not made.is_terminal:
        made.width = 160  # a file or pipe has no width: nothing should be cut for it
    return made


console = _console()
plain = _console(markup=False, highlight=False)
"""Shows what others wrote as it is, colour codes and all."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


def listing(*columns: str) -> Table:
    """Names to copy are never cut: a narrow terminal cuts the last column instead."""
    table = Table(box=SIMPLE_HEAVY)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def print_table(table: Table, when_empty: str) -> None:
    console.print(table if table.row_count else when_empty)


def print_pass(rows: Sequence[Mapping[str, str]], sentences: Iterable[str]) -> None:
    """A row a model, then what there is to say."""
    table = listing(*(rows[0] if rows else ()))
    for row in rows:
        table.add_row(*row.values())
    if rows:
        plain.print(table)
    for sentence in sentences:
        plain.print(sentence, soft_wrap=True)


def problem(error: "ValidationError") -> str:
    """The first thing that is wrong, in words."""
    found = error.errors()[0]
    return ": ".join([*map(str, found["loc"][-1:]), found["msg"].removeprefix("Value error, ")])


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def parsed_params(pairs: list[str]) -> dict[str, Any]:
    """Training parameters as they are typed: NAME=VALUE."""
    parsed = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not (separator and name and value):
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE, for example --param max_depth=5")
        if name in parsed:
            raise typer.BadParameter(f"{name} is given twice")
        parsed[name] = value
    return parsed


def user() -> str:
    import getpass

    return getpass.getuser()
