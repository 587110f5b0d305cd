"""`clm prune`: removal of the files of failed versions."""

from datetime import timedelta
from typing import Annotated

import typer

from clm_core.cli.output import AsJson, listing, plain, print_json
from clm_core.cli.promotion import this_user
from clm_core.cli.settings_in_force import settings_for_change

app = typer.Typer(rich_markup_mode=None)


@app.command()
def prune(
    older_than: Annotated[int, typer.Option(min=0, metavar="DAYS", help="Minimum age of a version.")] = 30,
    yes: Annotated[bool, typer.Option("--yes", help="Remove the files instead of listing them.")] = False,
    as_json: AsJson = False,
) -> None:
    """List failed versions whose files can be removed, with their sizes; --yes removes the files.

    Versions that are or ever were in production, candidates, shadows and retired versions keep their files.
    Records, verdict, evidence, tear sheet and explanation of a failed version stay; the model is gone.
    """
    from clm_core.registry.pruning import Pruning
    from clm_core.services import open_services

    with open_services(settings_for_change()) as services:
        pruning = Pruning(
            services.settings.home, services.database, services.ledger, services.settings.storage
        )
        now = services.clock()
        age = timedelta(days=older_than)
        versions = pruning.prune(age, this_user(), now) if yes else pruning.plan(age, now)
    size = sum(version.size for version in versions)
    if as_json:
        listed = [version.model_dump(mode="json") for version in versions]
        print_json({"removed": yes, "size": size, "versions": listed})
        return
    table = listing("model", "version", "age", "files", "MB")
    for version in versions:
        cells = (f"{(now - version.created_at).days} d", str(version.files), f"{version.size / 1e6:,.1f}")
        table.add_row(version.model_id, version.version, *cells)
    if versions:
        plain.print(table)
    done = "were removed" if yes else "would be removed by --yes"
    plain.print(f"Files of {len(versions):,} failed versions {done}: {size / 1e6:,.1f} MB.")
