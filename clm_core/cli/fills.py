"""`clm fills`: reported fills of a model, and what they cost beside the paper record."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.output import AsJson, listing, plain, print_table
from clm_core.cli.running import services_to_look

if TYPE_CHECKING:
    from clm_core.domain.fills import FillPage

app = typer.Typer(rich_markup_mode=None)


@app.command()
def fills(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model id.")],
    limit: Annotated[int, typer.Option(help="Number of fills, the newest first.", min=1, max=1000)] = 20,
    after: Annotated[str | None, typer.Option(help="Cursor of the preceding page, `next`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the fills of a model: slippage, measured beside modelled costs, realised beside paper returns."""
    from clm_core.domain.fills import FillQuery
    from clm_core.lifecycle.fills import fills_of

    with services_to_look() as services:
        page = fills_of(services, model, FillQuery(limit=limit, after=after))
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
    else:
        _show(page)


def _show(page: "FillPage") -> None:
    table = listing("time (UTC)", "version", "market", "change", "price", "slippage", "fee", "id")
    for fill in page.items:
        slippage = "" if fill.slippage_bps is None else f"{fill.slippage_bps:+.2f} bps"
        table.add_row(
            f"{fill.time:%Y-%m-%d %H:%M:%S}",
            fill.version,
            fill.symbol,
            f"{fill.change:+.4f}",
            f"{fill.price:g}",
            "resting order" if fill.resting else slippage,
            "" if fill.fee_bps is None else f"{fill.fee_bps:.2f} bps",
            fill.id,
        )
    print_table(table, f"No fill of {page.model_id} was reported: traders send them to POST /clm/fills.")
    for market in page.markets:
        plain.print(market.sentence, soft_wrap=True)
    if page.next:
        plain.print(f"The next page: --after {page.next}", soft_wrap=True)
