"""`clm db`: check and upgrade of the ledger's tables."""

import contextlib
import sys
from collections.abc import Iterator

import typer

from clm_core.cli.exit_codes import ExitCode
from clm_core.cli.output import AsJson, print_json
from clm_core.cli.settings_in_force import settings_for_look

app = typer.Typer(help="Check and upgrade the ledger's tables.", no_args_is_help=True)


@app.command()
def upgrade(as_json: AsJson = False) -> None:
    """Upgrade the ledger's tables to this release, in a single transaction.

    On the embedded server the upgrade happens at every start. On a server of your own (CLM_DATABASE_URL),
    stop all processes of an older release and back up first: older releases refuse upgraded tables.
    """
    from clm_core.ledger import migrations

    with _url() as url:
        applied = migrations.upgrade(url)
    if as_json:
        print_json({"applied": list(applied), "revision": migrations.HEAD})
        return
    done = f"Applied {', '.join(applied)}" if applied else "Nothing to do"
    typer.echo(f"{done}: the ledger stands at revision {migrations.HEAD}.")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Compare the tables with this release; exits with 1 on differences, and prints the remedies."""
    from clm_core.ledger.schema import examine

    with _url() as url:
        schema = examine(url)
    if as_json:
        typer.echo(schema.model_dump_json(indent=2))
    else:
        typer.echo(f"Revision {schema.revision or 'none'}; this release is at {schema.newest}.")
        for problem in schema.problems:
            typer.echo(f"  - {problem}")
        typer.echo("The tables need attention." if schema.problems else "The tables are in order.")
    if schema.problems:
        sys.exit(ExitCode.FAILED)


@contextlib.contextmanager
def _url() -> Iterator[str]:
    from clm_core.platform.database import open_database

    settings = settings_for_look()
    with open_database(settings.home, settings.database_url) as database:
        yield database.url("ledger", driver="psycopg")
