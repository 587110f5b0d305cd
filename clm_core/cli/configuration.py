"""`clm config`, `clm init`: the settings in force, and the settings file of a home."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clm_core.cli.output import print_json
from clm_core.cli.settings_in_force import settings_for_look

if TYPE_CHECKING:
    from clm_core.settings import Settings

app = typer.Typer(rich_markup_mode=None)


@app.command()
def config(
    check: Annotated[
        bool,
        typer.Option("--check", help="Also try what the settings name: policy, receivers, secrets, kinds."),
    ] = False,
) -> None:
    """Print the settings in force as JSON, with secrets masked, the file and the variables that set them."""
    from clm_core.operations.settings_check import require_usable
    from clm_core.settings import effective

    settings = settings_for_look()
    source = _source(settings)
    variables = ", ".join(source["variables"]) or "none"
    typer.echo(
        f"Home: {settings.home}. Settings file: {source['file'] or 'none'}"
        f"{_found_by(source['found_by'])}. Variables: {variables}.",
        err=True,
    )
    print_json(effective(settings) | {"settings_in_force": source})
    if check:
        require_usable(settings)


@app.command()
def init(
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Move this settings file into the home instead of writing a new one."),
    ] = None,
) -> None:
    """Write the settings file of the home, clm.toml, with every setting and its default as comments."""
    from clm_core.operations.settings_init import move_settings, write_settings

    if source is None:
        typer.echo(write_settings())
        return
    for line in move_settings(source):
        typer.echo(line)


def _source(settings: "Settings") -> dict[str, Any]:
    from clm_core.operations.settings_check import differences
    from clm_core.settings import settings_place, variables_given

    file = settings_place(settings.home).file
    return {
        "home": str(settings.home),
        "file": None if file is None else str(file.path),
        "found_by": None if file is None else file.found_by.value,
        "variables": variables_given(),
        "differ_from_running_stack": differences(settings),
    }


def _found_by(rule: str | None) -> str:
    return "" if rule in (None, "home") else f" ({rule})"
