"""`clm explain`: importance of the features of a version."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.naming import VersionName, find_version
from clm_core.cli.output import AsJson, listing, plain, print_json
from clm_core.cli.settings_in_force import settings_for_look
from clm_core.domain import measures

if TYPE_CHECKING:
    from clm_core.lifecycle.explanations import VersionExplanation

app = typer.Typer(rich_markup_mode=None)
WIDTH = 30
"""Characters of the longest bar."""


@app.command()
def explain(
    version: VersionName,
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Newest bars to explain.")] = 500,
    symbol: Annotated[str | None, typer.Option(help="Market of the bars: a member of a pool.")] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Write a page with a chart; prints the path alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how much each feature moves the answers of a version's trees, by SHAP values of newest bars."""
    from clm_core.lifecycle.explanations import explain_version, write_page
    from clm_core.services import open_services

    with open_services(settings_for_look()) as services:
        found = explain_version(services, find_version(services, version), rows, symbol)
        path = write_page(services, found) if page else None
    if path is not None:
        typer.echo(path)
    elif as_json:
        print_json(found.to_json())
    else:
        _show(found)


def _show(found: "VersionExplanation") -> None:
    table = listing("feature", "mean |SHAP|", "share", "when high", "when low", "")
    used = [each for each in found.features if each.share > 0]
    for each in used:
        bar = "█" * round(WIDTH * each.share / used[0].share)
        table.add_row(
            each.feature,
            f"{each.mean_absolute:.4f}",
            measures.percent(each.share),
            f"{each.when_high:+.4f}",
            f"{each.when_low:+.4f}",
            bar,
        )
    plain.print(table)
    plain.print(
        f"{found.model_id}@{found.version} on {found.rows} bars of {found.symbol}, "
        f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC, in {found.unit}.",
        f"Base {found.base:+.4f}: base and values of a bar add up to the answer of the trees.",
        "When high, low: mean value on the bars in the top and bottom quarter of the feature.",
        f"Features without any part in these answers: {len(found.features) - len(used)}.",
        sep="\n",
        soft_wrap=True,
    )
