"""`clm shadow`: what waits to serve, followed at 0 % allocation."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.output import AsJson, print_pass
from clm_core.cli.running import telling_steps

if TYPE_CHECKING:
    from clm_core.lifecycle.shadow import ShadowReport

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
    with telling_steps() as services:
        from clm_core.lifecycle import shadow

        return shadow.run(services, model)


def _show(report: "ShadowReport") -> None:
    from clm_core.lifecycle.shadow import rows, summary_lines

    print_pass(rows(report), (*summary_lines(report), report.headline))
