"""`clm shadow`: shadow testing of candidate versions at 0 % allocation."""

from typing import Annotated

import typer

from clm_core.cli.output import AsJson, print_report
from clm_core.cli.running import services_with_status

app = typer.Typer(rich_markup_mode=None)


@app.command()
def shadow(
    model: Annotated[str | None, typer.Argument(help="Only the versions of this model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Record the positions of candidate versions, and show the returns of all recorded positions."""
    with services_with_status() as services:
        from clm_core.lifecycle import shadow

        report = shadow.run(services, model)
    print_report(report, as_json)
