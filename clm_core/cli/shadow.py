"""`clm shadow`: what waits to serve, followed at 0 % allocation."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from clm_core.cli.output import AsJson, print_pass

if TYPE_CHECKING:
    from clm_core.shadow import ShadowReport

app = typer.Typer(rich_markup_mode=None)


@app.command()
def shadow(
    model: Annotated[str | None, typer.Argument(help="One model's versions only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write down what versions that wait want to hold, and show what they would have earned by now."""
    report = _run(model)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _show(report)
    if report.problems:
        sys.exit(1)


def _run(model: str | None) -> "ShadowReport":
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with Console(stderr=True).status("Opening the database") as status:

        def announce(step: str, share: float) -> None:
            status.update(step)

        with open_services(load_settings(), announce) as services:
            from clm_core import shadow

            return shadow.run(services, model)


def _show(report: "ShadowReport") -> None:
    from clm_core.shadow import rows, said

    print_pass(rows(report), (*said(report), report.headline))
