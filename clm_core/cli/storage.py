"""`clm storage`: bars and artifacts in a bucket."""

import typer

from clm_core.cli.output import AsJson, progress_bar
from clm_core.cli.promotion import this_user
from clm_core.cli.settings_in_force import settings_for_look

app = typer.Typer(rich_markup_mode=None, help="Bars and artifacts in a bucket: [storage] in the settings.")


@app.callback()
def _group() -> None:
    """Bars and artifacts in a bucket: [storage] in the settings."""


@app.command()
def upload(as_json: AsJson = False) -> None:
    """Bring bars and artifacts of the home into the bucket, and read and write there from now on.

    Nothing is removed from the home. End `clm up` and everything else that writes before; repeat the command
    after an interruption.
    """
    from clm_core.operations.uploading import upload_home

    with progress_bar("Upload") as announce:
        report = upload_home(settings_for_look(), this_user(), announce)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    typer.echo(
        f"{report.files:,} files of {report.home} ({report.size / 1e6:,.1f} MB, {report.sent:,} sent now) "
        f"are in {report.url}; {report.locations:,} locations in MLflow's database name the bucket."
    )
