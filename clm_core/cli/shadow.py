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
    """Record the positions of candidate versions, show their returns, and decide: promote, retire, expire or
    continue."""
    with services_with_status() as services:
        from clm_core.lifecycle import shadow_decisions

        report = shadow_decisions.run(services, model, anew=True)
    print_report(report, as_json)
