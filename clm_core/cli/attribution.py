"""`clm attribution`: where the P&L of paper records comes from."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.explain import show_section
from clm_core.cli.naming import find_version
from clm_core.cli.output import AsJson, print_json
from clm_core.cli.page_options import OpensPage, WritesPage, hand_over
from clm_core.cli.running import services_to_look

if TYPE_CHECKING:
    from clm_core.domain.explanations import Section
    from clm_core.services import Services

app = typer.Typer(rich_markup_mode=None)


@app.command()
def attribution(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|VERSION]",
            help="A model id for its whole life in production, or a version; by default all models together.",
        ),
    ] = None,
    page: WritesPage = False,
    open_page: OpensPage = False,
    as_json: AsJson = False,
) -> None:
    """Show where the P&L of recorded positions comes from: model, symbol, time, side, reasons, decision."""
    from clm_core.lifecycle.attribution import write_page

    with services_to_look() as services:
        section = _section(services, name)
        path = write_page(services, name or "all models", section) if page or open_page else None
    if path is not None:
        hand_over(path, open_page)
    elif as_json:
        print_json(section.model_dump(mode="json"))
    else:
        show_section(section)


def _section(services: "Services", name: str | None) -> "Section":
    from clm_core.lifecycle import attribution

    if name is None:
        return attribution.attribute_all(services)
    if services.ledger.versions(model_id=name, limit=1):
        return attribution.attribute_model(services, name)
    return attribution.attribute_version(services, find_version(services, name))
