"""`clm watch`: what serves, on the newest bars."""

import sys
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from clm_core.cli.output import AsJson, print_pass

if TYPE_CHECKING:
    from clm_core.watch import WatchReport

app = typer.Typer(rich_markup_mode=None)


@app.command()
def watch(as_json: AsJson = False) -> None:
    """Look at what serves on the newest bars, and ask for a retrain of what is stale or earns too little."""
    report = _run()
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _show(report)
    if report.problems:
        sys.exit(1)


def _run() -> "WatchReport":
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with Console(stderr=True).status("Opening the database") as status:

        def announce(step: str, share: float) -> None:
            status.update(step)

        with open_services(load_settings(), announce) as services:
            from clm_core import watch

            return watch.run(services)


def _show(report: "WatchReport") -> None:
    from clm_core.watch import rows, said

    print_pass(rows(report), (*said(report), report.headline))
