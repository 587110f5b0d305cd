"""`clm compare`: two versions beside each other."""

from typing import Annotated

import typer

from clm_core.cli.explain import show_section
from clm_core.cli.naming import find_version
from clm_core.cli.output import AsJson, plain, print_json
from clm_core.cli.page_options import OpensPage, WritesPage, hand_over
from clm_core.cli.running import services_to_look

app = typer.Typer(rich_markup_mode=None)

HELP = "MODEL@VERSION, MODEL@production, a version label, or a model id for its newest."


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=HELP)],
    second: Annotated[str, typer.Argument(metavar="B", help=HELP)],
    page: WritesPage = False,
    open_page: OpensPage = False,
    as_json: AsJson = False,
) -> None:
    """Show two versions beside each other: verdict, metrics, equity over the common time, parameters,
    importance of the features, calibration."""
    from clm_core.lifecycle.comparison import compare_versions, write_page

    with services_to_look() as services:
        versions = find_version(services, first), find_version(services, second)
        compared = compare_versions(services, *versions)
        path = write_page(services, compared) if page or open_page else None
    if path is not None:
        hand_over(path, open_page)
        return
    if as_json:
        print_json(compared.model_dump(mode="json"))
        return
    plain.print(f"{compared.first}\n{compared.second}\n", soft_wrap=True)
    for each in compared.sections:
        show_section(each)
    plain.print("Equity curves: --page, or --open.")
