"""`clm watch`: what serves, on the newest bars."""

import sys
from typing import TYPE_CHECKING

import typer

from clm_core.cli.output import AsJson, print_pass
from clm_core.cli.running import telling_steps

if TYPE_CHECKING:
    from clm_core.lifecycle.watch import WatchReport

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
    with telling_steps() as services:
        from clm_core.lifecycle import watch

        return watch.run(services)


def _show(report: "WatchReport") -> None:
    from clm_core.lifecycle.watch import rows, summary_lines

    print_pass(rows(report), (*summary_lines(report), report.headline))
