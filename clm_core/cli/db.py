"""`clm db …`: whether the ledger's tables are those of this release, and bringing them there."""

import contextlib
import sys
from collections.abc import Iterator

import typer

from clm_core.cli.output import AsJson

app = typer.Typer(help="The ledger's tables: check them, bring them up to date.", no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Bring the tables up to what this release expects, in one transaction.

    Those of the embedded server are, whenever they are opened. With a server of your own (CLM_DATABASE_URL)
    stop what runs an older release, back up, then run this: older releases refuse upgraded tables.
    """
    from clm_core.ledger import migrations

    with _url() as url:
        applied = migrations.upgrade(url)
    done = f"Applied {', '.join(applied)}" if applied else "Nothing to do"
    typer.echo(f"{done}: the ledger stands at revision {migrations.HEAD}.")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Compare the tables with this release; exits with 1 when they differ, and says what to do."""
    from clm_core.ledger.schema import examine

    with _url() as url:
        found = examine(url)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        typer.echo(f"Revision {found.revision or 'none'}; this release is at {found.newest}.")
        for problem in found.problems:
            typer.echo(f"  - {problem}")
        typer.echo("Not as it should be." if found.problems else "All is as it should be.")
    if found.problems:
        sys.exit(1)


@contextlib.contextmanager
def _url() -> Iterator[str]:
    from clm_core.platform.database import open_database
    from clm_core.settings import load_settings

    settings = load_settings()
    with open_database(settings.home, settings.database_url) as database:
        yield database.url("ledger", driver="psycopg")
