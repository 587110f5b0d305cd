"""`clm regimes`: current regime of a market, and the best recipes in each regime."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.output import AsJson, listing, plain
from clm_core.cli.running import services_with_status
from clm_core.domain import measures

if TYPE_CHECKING:
    from clm_core.domain.regime_pools import RankedVersion, RegimePools

app = typer.Typer(rich_markup_mode=None)


@app.command()
def regimes(
    symbol: Annotated[str, typer.Argument(help="Market, as in `clm data list`.")],
    timeframe: Annotated[str, typer.Option(help="Length of a bar.")] = "1h",
    best: Annotated[int, typer.Option(min=1, max=20, help="Number of recipes kept for each regime.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show the regime of a market and the best recipes in each regime, by out-of-sample results."""
    with services_with_status() as services:
        from clm_core.retraining.regime_pools import regime_pools

        report = regime_pools(services, symbol, timeframe, best)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _show(report)


def _show(report: "RegimePools") -> None:
    market = f"{report.symbol} {report.timeframe}"
    if report.current is None:
        plain.print(f"{market}: the regime is unknown, before the first quarter after a year of bars.")
    else:
        plain.print(f"{market}: {report.current} since {report.since:%Y-%m-%d}.")
    table = listing(
        "regime",
        "version",
        "status",
        "Sharpe ratio",
        "max drawdown",
        "win rate",
        "net return",
        "trades",
        "days",
    )
    for pool in report.pools:
        for each in pool.kept:
            table.add_row(pool.regime.value, *_cells(each))
    if table.row_count:
        plain.print(table)
    for pool in report.pools:
        plain.print(f"{pool.regime}: {len(pool.kept)} of {pool.ranked} recipes kept.", soft_wrap=True)
    for sentence in report.left_out:
        plain.print(f"Left out: {sentence}.", soft_wrap=True)
    plain.print(
        "Newest version of each recipe, out of sample and after costs in the bars of the regime; Sharpe "
        "ratio with its standard error.",
        soft_wrap=True,
    )


def _cells(each: "RankedVersion") -> tuple[str, ...]:
    return (
        f"{each.model_id}@{each.version}",
        each.status.value,
        f"{measures.ratio(each.sharpe_ratio)} ± {measures.ratio(each.sharpe_error)}",
        measures.percent(each.max_drawdown),
        measures.NOT_MEASURED if each.win_rate is None else measures.percent(each.win_rate),
        measures.signed_percent(each.total_return),
        measures.count(each.trades),
        f"{each.days:,.0f}",
    )
