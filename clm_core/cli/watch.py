"""`clm watch`: check of the production versions on the newest bars."""

import typer

from clm_core.cli.output import AsJson, print_report
from clm_core.cli.running import services_with_status

app = typer.Typer(rich_markup_mode=None)


@app.command()
def watch(as_json: AsJson = False) -> None:
    """Check the production versions on the newest bars, and request retrains of stale or weak models."""
    with services_with_status() as services:
        from clm_core.lifecycle import watch

        report = watch.run(services)
    print_report(report, as_json)
