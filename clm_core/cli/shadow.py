"""`clm shadow`: positions of production and candidate versions, recorded after each bar."""

from typing import Annotated

import typer

from clm_core.cli.output import AsJson, print_report
from clm_core.cli.running import services_with_status

app = typer.Typer(rich_markup_mode=None)


@app.command()
def shadow(
    model: Annotated[str | None, typer.Argument(help="Only the versions of this model.")] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Compute all positions anew and compare them with the record.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Record the positions of production and candidate versions, show the returns, and decide on candidates:
    promote, retire, expire or continue."""
    with services_with_status() as services:
        from clm_core.lifecycle import shadow_decisions

        report = shadow_decisions.run(services, model, anew=True, whole=whole)
    print_report(report, as_json)
