"""`clm explain`: what a version looks at, how well it knows, and where its results come from."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.naming import VersionName, find_version
from clm_core.cli.output import AsJson, listing, plain, print_json
from clm_core.cli.page_options import OpensPage, WritesPage, hand_over
from clm_core.cli.running import services_to_look
from clm_core.domain.errors import NotFound

if TYPE_CHECKING:
    from clm_core.domain.explanations import Section, SectionTable, VersionExplanation

app = typer.Typer(rich_markup_mode=None)


@app.command()
def explain(
    version: VersionName,
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Newest bars to explain.")] = 500,
    symbol: Annotated[str | None, typer.Option(help="Market of the bars: a member of a pool.")] = None,
    section: Annotated[
        str | None, typer.Option(help='Section to show alone: "features", for example.')
    ] = None,
    page: WritesPage = False,
    open_page: OpensPage = False,
    as_json: AsJson = False,
) -> None:
    """Show what a version looks at, how well it knows, and where its results come from."""
    from clm_core.lifecycle.explanations import explain_version, write_page

    with services_to_look() as services:
        explanation = explain_version(services, find_version(services, version), rows, symbol)
        path = write_page(services, explanation) if page or open_page else None
    if section is not None:
        explanation = explanation.model_copy(update={"sections": (_named(explanation, section),)})
    if path is not None:
        hand_over(path, open_page)
    elif as_json:
        print_json(explanation.model_dump(mode="json"))
    else:
        for each in explanation.sections:
            show_section(each, with_tables=section is not None)
        if section is None:
            names = ", ".join(each.name for each in explanation.sections)
            plain.print(f"Tables: --section NAME of {names}. Charts: --page, or --open.", soft_wrap=True)


def _named(explanation: "VersionExplanation", name: str) -> "Section":
    for each in explanation.sections:
        if each.name == name:
            return each
    names = ", ".join(each.name for each in explanation.sections)
    raise NotFound(
        f"{explanation.model_id} {explanation.version} has no section {name!r}; there are: {names}"
    )


def show_section(section: "Section", with_tables: bool = True) -> None:
    """Print a section in the terminal: its sentences and tables, without charts."""
    plain.print(section.title, style="bold")
    plain.print(*section.sentences, "", sep="\n", soft_wrap=True)
    if with_tables:
        for table in section.tables:
            _show_table(table)


def _show_table(table: "SectionTable") -> None:
    if table.title:
        plain.print(table.title)
    rows = listing(*table.columns)
    for each in table.rows:
        rows.add_row(*each)
    plain.print(rows)
    if table.note:
        plain.print(table.note, soft_wrap=True)
