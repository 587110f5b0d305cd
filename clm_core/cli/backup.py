"""`clm backup`, `clm restore`: a home in one file, and back."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.exit_codes import ExitCode
from clm_core.cli.output import AsJson, progress_bar
from clm_core.cli.promotion import this_user
from clm_core.cli.settings_in_force import settings_for_look

if TYPE_CHECKING:
    from clm_core.operations.backup import BackupReport
    from clm_core.operations.restoring import HomeStores, RestoreReport

app = typer.Typer(rich_markup_mode=None)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="New file, outside the home: clm.tar.gz.")],
    as_json: AsJson = False,
) -> None:
    """Write the home and its databases into one file, while everything goes on running.

    The file holds ledger, MLflow, studies, bars, versions, audit anchors and the settings file, with a
    SHA-256 for each part; secrets in the settings file are in the backup. Prefect's runs are left out.
    """
    from clm_core.operations.backup import write_backup

    settings = settings_for_look()
    with progress_bar("Backup") as announce:
        report = write_backup(settings, file, announce)
    typer.echo(report.model_dump_json(indent=2) if as_json else "\n".join(_backup_lines(report)))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="File written by `clm backup`.")],
    home: Annotated[
        Path | None, typer.Option(file_okay=False, help="Empty folder; by default CLM_HOME.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty home, here or at another path; exits with 1 if a version is damaged.

    Every part of the file is compared with the manifest before anything is written. The ledger is upgraded to
    this release. Repeat an interrupted restoration; until the end, other commands refuse the home.
    """
    from clm_core.operations.restoring import restore_home
    from clm_core.platform.settings_file import home_in_force

    place = home_in_force() if home is None else home
    with progress_bar("Restore") as announce:
        report = restore_home(file, place, _stores, this_user(), announce)
    typer.echo(report.model_dump_json(indent=2) if as_json else "\n".join(_restore_lines(report)))
    if report.problems:
        raise typer.Exit(ExitCode.FAILED)


def _stores(home: Path) -> "HomeStores":
    """Database and bucket of the restored home; a refused settings file does not stop a restoration."""
    from pydantic import SecretStr, ValidationError

    from clm_core.domain.errors import SettingsError
    from clm_core.domain.setting_keys import variable_given
    from clm_core.domain.storage_settings import StorageSettings
    from clm_core.operations.restoring import HomeStores
    from clm_core.platform.settings_file import FILE, HOME_VARIABLE, read_tables
    from clm_core.settings import load_settings

    os.environ[HOME_VARIABLE] = str(home)
    try:
        settings = load_settings()
        return HomeStores(settings.database_url, settings.storage)
    except SettingsError as error:
        typer.echo(f"Warning: correct the settings after the restoration: {error}", err=True)
    own = home / FILE
    tables = read_tables(own) if own.exists() else {}
    url = os.environ.get("CLM_DATABASE_URL") or tables.get("database_url")
    if url is not None and not str(url).startswith("postgres"):
        raise SettingsError(
            "Set CLM_DATABASE_URL to the server of the restored home, then repeat the command."
        )
    stores = HomeStores(None if url is None else SecretStr(str(url)))
    named = {field: variable_given(os.environ, ("storage", field)) for field in StorageSettings.model_fields}
    given = {field: os.environ[name] for field, name in named.items() if name is not None}
    with contextlib.suppress(ValidationError, TypeError):
        return replace(stores, storage=StorageSettings.model_validate({**tables.get("storage", {}), **given}))
    return stores


def _backup_lines(report: "BackupReport") -> Iterator[str]:
    sizes = f"{report.size / 1e6:,.1f} MB, {report.members:,} files of {report.content / 1e6:,.1f} MB"
    counts = f"{report.versions:,} versions, {report.audit_entries:,} audit entries"
    yield f"{report.file}: {sizes}, {counts}, as of {report.created_at:%Y-%m-%d %H:%M:%S} UTC."
    for each in report.left_out:
        yield f"  left out: {each.what} ({each.why})"
    for name in report.incomplete:
        yield f"  {name}: the files were missing or changed before the backup; see `clm maintenance`"


def _restore_lines(report: "RestoreReport") -> Iterator[str]:
    yield (
        f"{report.home} is restored as of {report.created_at:%Y-%m-%d %H:%M:%S} UTC: "
        f"{report.versions:,} versions and {report.audit_entries:,} audit entries were compared."
    )
    if report.applied:
        yield f"  ledger upgraded: {', '.join(report.applied)}"
    yield from (f"  {sentence}" for sentence in report.ended)
    yield from (f"  problem: {sentence}" for sentence in report.problems)
    yield f"Next: CLM_HOME={report.home} clm maintenance"
