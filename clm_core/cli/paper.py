"""`clm paper`: recorded positions of a version with net returns and costs."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.naming import VersionName, find_version
from clm_core.cli.output import AsJson, console, listing
from clm_core.cli.running import services_to_look

if TYPE_CHECKING:
    from clm_core.domain.paper import PaperRecord

app = typer.Typer(rich_markup_mode=None)


@app.command()
def paper(
    version: VersionName,
    symbol: Annotated[str | None, typer.Option(help="Member of a pool; by default the portfolio.")] = None,
    limit: Annotated[int, typer.Option(help="Number of bars, the newest first.", min=1, max=1000)] = 20,
    after: Annotated[str | None, typer.Option(help="Cursor of the preceding page, `next`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the paper record of a version: position, net return and cost of each bar, late rows marked."""
    from clm_core.domain.paper import PaperQuery
    from clm_core.lifecycle.paper import paper_record

    query = PaperQuery(symbol=symbol, limit=limit, after=after)
    with services_to_look() as services:
        record = paper_record(services, find_version(services, version), query)
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    else:
        _show(record)


def _show(record: "PaperRecord") -> None:
    table = listing("bar (UTC)", "position", "net return", "cost", "recorded", "evidence")
    for bar in record.items:
        table.add_row(
            f"{bar.time:%Y-%m-%d %H:%M}",
            f"{bar.position:+.3f}",
            f"{bar.net_return:+.4%}",
            f"{bar.cost:.4%}",
            "late" if bar.late else "in time",
            "yes" if bar.evidence else "no",
        )
    if record.items:
        console.print(table)
    following = f" The next page: --after {record.next}" if record.next else ""
    console.print(
        f"{record.model_id} {record.version} on {record.symbol}: {record.bars:,} bars recorded, "
        f"{record.late:,} of them late, after {record.costs}.{following}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
