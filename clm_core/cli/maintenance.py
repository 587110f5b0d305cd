"""`clm maintenance`, `clm alerts`: one maintenance pass, and the recorded alerts."""

import json
from typing import Annotated

import typer
from rich.console import Console

from clm_core.cli.output import AsJson, print_report
from clm_core.cli.renamed import keep_old_name
from clm_core.cli.running import services_to_look, services_with_status

app = typer.Typer(rich_markup_mode=None)
# text from outside is printed without interpretation of markup
console = Console(markup=False, highlight=False, soft_wrap=True)


@app.command()
def maintenance(as_json: AsJson = False) -> None:
    """Run one maintenance pass: dead jobs, waiting messages, promotions, files, audit, events and alerts."""
    with services_with_status() as services:
        from clm_core.operations import maintenance

        report = maintenance.run(services)
    print_report(report, as_json)


keep_old_name(app, "upkeep", "maintenance", maintenance)


@app.command()
def alerts(
    limit: Annotated[int, typer.Option(min=1, help="Number of alerts, newest first.")] = 20,
    lasting: Annotated[bool, typer.Option("--lasting", help="Only open alerts.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the recorded alerts, newest first."""

    with services_to_look() as services:
        recorded = services.alerts.lasting()[::-1] if lasting else services.alerts.newest(limit)
    if as_json:
        typer.echo(json.dumps([alert.model_dump(mode="json") for alert in recorded[:limit]], indent=2))
        return
    for alert in recorded[:limit]:
        state = "lasts" if alert.ended_at is None else "over"
        console.print(f"#{alert.seq} {alert.at:%Y-%m-%d %H:%M} UTC {alert.kind} {alert.subject} ({state})")
        console.print(f"    {alert.message}")
    if not recorded:
        console.print("No alert is recorded.")
