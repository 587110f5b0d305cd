"""`clm approvals`: promotions that wait for the answer of a person."""

import json

import typer

from clm_core.cli.output import AsJson, listing, plain, print_table
from clm_core.cli.running import services_to_look

app = typer.Typer(rich_markup_mode=None)


@app.command(name="approvals")
def list_approvals(as_json: AsJson = False) -> None:
    """List the promotions that wait for an approval: `clm promote` approves, `clm retire` refuses."""
    from clm_core.lifecycle import approvals

    with services_to_look() as services:
        waiting = approvals.all_waiting(services)
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in waiting], indent=2))
        return
    table = listing("version", "replaces", "since", "until")
    for each in waiting:
        since, until = (f"{moment:%Y-%m-%d %H:%M}" for moment in (each.since, each.until))
        table.add_row(each.label, each.champion or "-", since, until)
    print_table(table, "No promotion waits for an approval.")
    for each in waiting:
        plain.print(f"{each.label}: {'; '.join((*each.reasons, each.progress))}.", soft_wrap=True)
