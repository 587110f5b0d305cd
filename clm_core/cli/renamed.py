"""Commands that were renamed: the old name works for one release and names the new command."""

import functools
from collections.abc import Callable

import typer


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
