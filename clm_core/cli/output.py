"""Input and output of the commands: tables for people, JSON for scripts."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.table import Table

from clm_core.cli.exit_codes import ExitCode
from clm_core.domain.progress import Announce

if TYPE_CHECKING:
    from pydantic import ValidationError

    from clm_core.operations.passes import PassReport


def _console(**options: Any) -> Console:
    created = Console(**options)
    if not created.is_terminal:
        created.width = 160  # a file or pipe has no width, so no text is cut
    return created


console = _console()
plain = _console(markup=False, highlight=False)
"""Prints text of other origin unchanged, without interpreting markup."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Announce]:
    """Bar of the work in the block, on standard error."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as progress:
        bar = progress.add_task(title, total=1.0)
        yield lambda step, share: progress.update(bar, description=f"{title}: {step}", completed=share)
        progress.update(bar, description=f"{title}: done", completed=1.0)


def listing(*columns: str) -> Table:
    """Table whose columns are not wrapped, so that names can be copied."""
    table = Table(box=SIMPLE_HEAVY)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def print_table(table: Table, when_empty: str) -> None:
    console.print(table if table.row_count else when_empty)


def print_report(report: "PassReport", as_json: bool) -> None:
    """Print the report of a pass, as a table and sentences or as JSON; exit with 1 if a problem occurred."""
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _print_rows(report.rows())
        for line in (*report.summary_lines(), report.headline):
            plain.print(line, soft_wrap=True)
    if report.problems:
        raise typer.Exit(ExitCode.FAILED)


def _print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    if not rows:
        return
    table = listing(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    plain.print(table)


def problem(error: "ValidationError") -> str:
    """Message of the first validation error."""
    first = error.errors()[0]
    return ": ".join([*map(str, first["loc"][-1:]), first["msg"].removeprefix("Value error, ")])


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def parsed_params(pairs: list[str]) -> dict[str, Any]:
    """Training parameters from NAME=VALUE pairs."""
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
