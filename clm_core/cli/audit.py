"""`clm audit …`: who did what and when, and whether that is still what was written."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.output import AsJson, plain

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clm_core.ledger.hash_chain import ChainReport

app = typer.Typer(help="The audit: show, verify and export who did what and when.", no_args_is_help=True)
SHOWN_PROBLEMS = 20


@app.command()
def show(
    model: Annotated[str | None, typer.Option(help="Only entries about this model id, or this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The newest entries."""
    from clm_core.ledger.audit_log import entries

    with _ledger() as engine:
        found = entries(engine, model, limit)
    if as_json:
        typer.echo(json.dumps([entry.model_dump() for entry in found], indent=2))
        return
    table = Table(box=SIMPLE_HEAVY)
    for column in ("entry", "at (UTC)", "who", "did", "to"):
        table.add_column(column, no_wrap=True)
    table.add_column("details", overflow="fold")
    for entry in found:
        table.add_row(
            str(entry.seq),
            entry.at[:19].replace("T", " "),
            f"{entry.actor} ({entry.role})",
            entry.action,
            entry.subject,
            json.dumps(entry.details) if entry.details else "",
        )
    plain.print(table if found else "No entries yet.")


@app.command()
def verify(
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="An export, instead of the database.")
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder with the anchors: a copy of <CLM_HOME>/audit/anchors."
        ),
    ] = None,
) -> None:
    """Check that nothing was edited, removed, inserted, reordered or rewritten; exits with 1 if it was.

    Without --anchors, the database is compared with those under CLM_HOME, an export with none.
    """
    from clm_core.ledger import audit_log

    if file is not None:
        _tell(audit_log.verify_export(file, [] if anchors is None else audit_log.read_anchors(anchors)))
        return
    folder = audit_log.anchor_folder(_home())
    with _ledger() as engine:
        report = audit_log.verify(engine, audit_log.read_anchors(anchors or folder))
        anchored = None if report.problems else audit_log.anchor(engine, folder, datetime.now(UTC))
    _tell(report)
    if anchored is not None:
        typer.echo(f"Entry {anchored.seq:,} is anchored now.")


@app.command()
def export(file: Annotated[Path, typer.Argument(dir_okay=False, help="JSON lines, oldest first.")]) -> None:
    """Write all entries with their hashes to a file, which `clm audit verify --file` can check anywhere."""
    from clm_core.ledger import audit_log

    with _ledger() as engine:
        count = audit_log.export(engine, file)
    typer.echo(f"Wrote {count:,} entries to {file}.")


def _tell(report: "ChainReport") -> None:
    from clm_core.domain.errors import AuditBroken

    if report.problems:
        found = [f"  {problem.message}" for problem in report.problems[:SHOWN_PROBLEMS]]
        if len(report.problems) > SHOWN_PROBLEMS:
            found.append(f"  and {len(report.problems) - SHOWN_PROBLEMS:,} more")
        raise AuditBroken(
            "\n".join(["The audit is not as it was written:", *found])
            + "\nKeep the database and the anchors as they are; compare them with an export or a backup."
        )
    typer.echo(f"{report.entries:,} entries, each follows from the one before; newest hash {report.head}.")
    typer.echo(
        f"{report.anchors:,} anchors agree; they vouch for the first {report.anchored:,} entries."
        if report.anchors
        else "No anchors: a log that was computed anew, or cut short, would pass."
    )


@contextlib.contextmanager
def _ledger() -> "Iterator[Engine]":
    from clm_core.platform.database import open_database
    from clm_core.services import open_ledger
    from clm_core.settings import load_settings

    settings = load_settings()
    with (
        open_database(settings.home, settings.database_url) as database,
        open_ledger(database) as engine,
    ):
        yield engine


def _home() -> Path:
    from clm_core.settings import load_settings

    return load_settings().home
