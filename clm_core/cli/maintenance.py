"""`clm upkeep`, `clm alerts`: what keeps the registry right, and what is not."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from clm_core.cli.output import AsJson

if TYPE_CHECKING:
    from clm_core.operations.maintenance import MaintenanceReport

app = typer.Typer(rich_markup_mode=None)
# what others wrote is shown as it is
console = Console(markup=False, highlight=False, soft_wrap=True)


@app.command()
def upkeep(as_json: AsJson = False) -> None:
    """One pass: dead jobs, half-done changes, expired forces, bundles, audit, events and alerts."""
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with Console(stderr=True).status("Opening the database"), open_services(load_settings()) as services:
        from clm_core.operations import maintenance

        report = maintenance.run(services)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _show(report)
    if report.failed:
        sys.exit(1)


@app.command()
def alerts(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    lasting: Annotated[bool, typer.Option("--lasting", help="Only conditions that have not ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """What was alerted, newest first."""
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as services:
        found = services.alerts.lasting()[::-1] if lasting else services.alerts.newest(limit)
    if as_json:
        typer.echo(json.dumps([alert.model_dump(mode="json") for alert in found[:limit]], indent=2))
        return
    for alert in found[:limit]:
        state = "lasts" if alert.ended_at is None else "over"
        console.print(f"#{alert.seq} {alert.at:%Y-%m-%d %H:%M} UTC {alert.kind} {alert.subject} ({state})")
        console.print(f"    {alert.message}")
    if not found:
        console.print("Nothing was alerted.")


def _show(report: "MaintenanceReport") -> None:
    for part in report.parts:
        outcome = "FAILED" if part.problems else "done" if part.done else "nothing to do"
        console.print(f"{part.part:<10} {outcome}")
        for sentence in (*part.done, *part.problems):
            console.print(f"    {sentence}")
    for alert in report.conditions:
        console.print(f"since {alert.at:%Y-%m-%d %H:%M} UTC: {alert.kind} {alert.subject}")
