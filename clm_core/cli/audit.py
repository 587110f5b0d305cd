"""`clm audit`: entries of the audit, verification and export."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.output import AsJson, plain, progress_bar
from clm_core.cli.settings_in_force import settings_for_change, settings_for_look
from clm_core.domain.errors import AuditBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Engine

    from clm_core.ledger.hash_chain import Anchor, ChainReport
    from clm_core.operations.anchor_shipping import ComparedPlace

app = typer.Typer(
    help="The audit of every change: show, verify and export the entries.", no_args_is_help=True
)
MAX_PROBLEMS = 20
"""Maximum number of problems printed."""


@app.command()
def show(
    model: Annotated[str | None, typer.Option(help="Only entries about the model id or job.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of entries, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the newest entries."""
    from clm_core.ledger.audit_log import entries

    with _ledger() as engine:
        newest = entries(engine, model, limit)
    if as_json:
        typer.echo(json.dumps([entry.model_dump() for entry in newest], indent=2))
        return
    table = Table(box=SIMPLE_HEAVY)
    for column in ("entry", "at (UTC)", "actor", "action", "subject"):
        table.add_column(column, no_wrap=True)
    table.add_column("details", overflow="fold")
    for entry in newest:
        table.add_row(
            str(entry.seq),
            entry.at[:19].replace("T", " "),
            f"{entry.actor} ({entry.role})",
            _action(entry.action),
            entry.subject,
            json.dumps(entry.details) if entry.details else "",
        )
    plain.print(table if newest else "No entries yet.")


@app.command()
def verify(
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Verify an export instead of the database."),
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder with a copy of the anchors, <CLM_HOME>/audit/anchors."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted verification of the database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check for edited, removed, inserted, reordered and rewritten entries; exits with 1 if there are any.

    Without --anchors, the database is compared with the anchors under CLM_HOME, an export with no anchors.
    The database is also compared with the timestamps and with the copies of the settings; a copy that cannot
    be read is an error. With --resume, entries found sound before an interruption are not read again.
    """
    from clm_core.ledger import audit_log
    from clm_core.ledger.clock import read_clock
    from clm_core.operations import anchor_shipping, audit_verification

    if file is not None:
        known = [] if anchors is None else audit_log.read_anchors(anchors)
        _print_report(audit_log.verify_export(file, known), as_json)
        return
    settings = settings_for_look()
    folder = audit_log.anchor_folder(settings.home)
    places = anchor_shipping.compare(settings.audit, settings.home)
    known = [
        *audit_log.read_anchors(anchors or folder),
        *(each for place in places for each in place.anchors),
    ]
    with _ledger() as engine:
        with progress_bar("Audit") as announce, _interruption(settings.home):
            report = audit_verification.verify(
                engine, settings.home, _distinct(known), read_clock(engine), announce, resume
            )
        unread = [place for place in places if place.problem]
        sound = not report.problems and not unread
        anchored = audit_log.anchor(engine, folder, read_clock(engine)) if sound else None
    if as_json:
        _print_report(report, as_json, places, anchored)
    else:
        for place in places:
            typer.echo(_place(place))
        _print_report(report)
    if unread:
        raise AuditBroken(
            "The audit agrees with the places that could be read, and was not compared with: "
            + ", ".join(place.place for place in unread)
        )
    if anchored is not None and not as_json:
        typer.echo(f"Anchored entry {anchored.seq:,}.")


@app.command()
def export(
    file: Annotated[
        Path, typer.Argument(dir_okay=False, help="File for the entries as JSON lines, oldest first.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write all entries with hashes to a file, to be checked anywhere by `clm audit verify --file`."""
    from clm_core.ledger import audit_log

    with _ledger() as engine, progress_bar("Export") as announce:
        count = audit_log.export(engine, file, announce)
    if as_json:
        typer.echo(json.dumps({"entries": count, "file": str(file)}))
    else:
        typer.echo(f"Wrote {count:,} entries to {file}.")


@app.command()
def ship(as_json: AsJson = False) -> None:
    """Ship the anchors to the places of the settings now, as every maintenance does."""
    from clm_core.domain.errors import PassIncomplete
    from clm_core.operations import anchor_shipping
    from clm_core.services import open_services

    with open_services(settings_for_change(delivers=True)) as services:
        places = list(anchor_shipping.steps(services))
        sentences = [sentence for _, step in places for sentence in _shipped(step, as_json)]
        names = {place for place, _ in places}
        failing = sorted(
            alert.subject
            for kind in anchor_shipping.ALERTS
            for alert in services.alerts.lasting(kind)
            if alert.subject in names
        )
    if as_json:
        shipped = {"places": sorted(names), "failing": failing, "changes": sentences}
        typer.echo(json.dumps(shipped, indent=2))
    elif not places:
        typer.echo("No place is set: name one under [audit] in the settings.")
    if failing:
        raise PassIncomplete(f"Not shipped to: {', '.join(failing)}.")


def _shipped(step: "Callable[[], list[str]]", as_json: bool) -> list[str]:
    """Sentences of a step, printed at its end unless JSON follows."""
    sentences = step()
    for sentence in () if as_json else sentences:
        typer.echo(sentence)
    return sentences


def _distinct(anchors: "list[Anchor]") -> "list[Anchor]":
    """Anchors by number, each entry once."""
    by_entry = {(anchor.seq, anchor.hash): anchor for anchor in anchors}
    return [by_entry[key] for key in sorted(by_entry)]


def _place(place: "ComparedPlace") -> str:
    if place.problem:
        return f"{place.place}: NOT READ: {place.problem}"
    newest = max((anchor.seq for anchor in place.anchors), default=None)
    if newest is None:
        return f"{place.place}: nothing yet."
    lines = len(place.anchors) - place.stamped
    return f"{place.place}: {lines:,} anchors, {place.stamped:,} valid timestamps, up to entry {newest:,}."


def _print_report(
    report: "ChainReport",
    as_json: bool = False,
    places: "Sequence[ComparedPlace]" = (),
    anchored: "Anchor | None" = None,
) -> None:
    """Print a verification; as JSON with the places compared and the newest anchor, too.

    Raises:
        AuditBroken: the audit was changed; JSON has been printed by then.
    """
    if as_json:
        typer.echo(json.dumps(_report_json(report, places, anchored), indent=2))
    if report.problems:
        lines = [f"  {problem.message}" for problem in report.problems[:MAX_PROBLEMS]]
        if len(report.problems) > MAX_PROBLEMS:
            lines.append(f"  and {len(report.problems) - MAX_PROBLEMS:,} more")
        raise AuditBroken(
            "\n".join(["The audit was changed after being written:", *lines])
            + "\nKeep the database and the anchors unchanged, and compare both with an export or a backup."
        )
    if as_json:
        return
    typer.echo(f"{report.entries:,} entries in an unbroken chain; newest hash {report.head}.")
    typer.echo(
        f"{report.anchors:,} anchors agree, and confirm the first {report.anchored:,} entries."
        if report.anchors
        else "No anchors: a rewritten or truncated log would pass the check."
    )


def _report_json(
    report: "ChainReport", places: "Sequence[ComparedPlace]", anchored: "Anchor | None"
) -> dict[str, object]:
    compared = [
        {
            "place": each.place,
            "anchors": len(each.anchors),
            "timestamps": each.stamped,
            "problem": each.problem,
        }
        for each in places
    ]
    return {
        **asdict(report),
        "problems": [each.message for each in report.problems],
        "places": compared,
        "newly_anchored": None if anchored is None else anchored.seq,
    }


def _action(stored: str) -> str:
    """Action as stored; with the present name for an action renamed since."""
    from clm_core.domain.audit import OLD_ACTIONS

    return f"{stored} (now {OLD_ACTIONS[stored]})" if stored in OLD_ACTIONS else stored


@contextlib.contextmanager
def _interruption(home: Path) -> "Iterator[None]":
    """Message about the way on after Ctrl-C."""
    from clm_core.operations.audit_verification import interrupted

    try:
        yield
    except KeyboardInterrupt:
        if checked := interrupted(home):
            typer.echo(
                f"Entries up to {checked.seq:,} are sound: `clm audit verify --resume` checks the others.",
                err=True,
            )
        raise


@contextlib.contextmanager
def _ledger() -> "Iterator[Engine]":
    from clm_core.platform.database import open_database
    from clm_core.services import open_ledger

    settings = settings_for_look()
    with (
        open_database(settings.home, settings.database_url) as database,
        open_ledger(database) as engine,
    ):
        yield engine
