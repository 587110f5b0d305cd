"""Renamed commands and settings: the old name works for one release, and the new name is printed."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import typer

from clm_core.domain.errors import DeprecatedSetting


def keep_old_name(app: typer.Typer, old: str, new: str, command: Callable[..., None]) -> None:
    """Registers the command under the old name too, hidden from `--help`.

    Args:
        old: former name below `clm`: "sweep".
        new: name to use from now on: "jobs reap".
    """

    @functools.wraps(command)
    def renamed(*args: object, **kwargs: object) -> None:
        typer.echo(f"clm {old} is now clm {new}", err=True)
        command(*args, **kwargs)

    app.command(name=old, hidden=True)(renamed)


def show_deprecations() -> None:
    """Prints warnings about renamed settings as a line on stderr, without place and source."""
    show_other = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, DeprecatedSetting):
            typer.echo(f"Warning: {message}", err=True)
        else:
            show_other(message, category, *place, **more)

    warnings.showwarning = show
