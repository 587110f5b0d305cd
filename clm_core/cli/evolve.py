"""`clm evolve`: breed training parameters, generation after generation."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.output import AsJson, console, parsed_params, print_json, user
from clm_core.cli.running import flow_of
from clm_core.cli.search_options import (
    EXIT_INTERRUPTED,
    MODEL,
    SYMBOL,
    Days,
    FixedParams,
    Holdout,
    KindName,
    ParallelWorkers,
    Plugin,
    Seed,
    Seeds,
    Symbols,
    Timeframe,
    span_of,
    validated,
)
from clm_core.cli.settings_in_force import settings_for_change

if TYPE_CHECKING:
    from clm_core.domain.evolution import EvolveRequest, EvolveResult

app = typer.Typer(rich_markup_mode=None)


@app.command()
def evolve(
    model: Annotated[KindName, MODEL],
    symbol: Annotated[str, SYMBOL],
    plugin: Plugin = None,
    symbols: Symbols = None,
    timeframe: Timeframe = "1h",
    days: Days = None,
    population: Annotated[int, typer.Option(min=4, max=500, help="Sets of parameters in a generation.")] = 20,
    generations: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Number of generations bred after generation 0, which is random."),
    ] = 10,
    holdout: Holdout = 0.2,
    param: FixedParams = None,
    selection: Annotated[
        str, typer.Option(metavar="tournament|roulette", help="Selection of parents.")
    ] = "tournament",
    crossover: Annotated[
        str, typer.Option(metavar="uniform|single-point", help="Crossover of two parents.")
    ] = "uniform",
    mutation: Annotated[
        str, typer.Option(metavar="gaussian|uniform", help="Distribution of the changes of a number.")
    ] = "gaussian",
    seed: Seed = 0,
    seeds: Seeds = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the evolution; the same command with the same name continues it."),
    ] = None,
    workers: ParallelWorkers = None,
    as_json: AsJson = False,
) -> None:
    """Breed better training parameters. Every candidate is counted in the trial ledger.

    The candidates are proposals only: `clm retrain --params-from CANDIDATE` trains and judges a candidate.
    Ctrl-C stops the evolution and keeps the results so far.
    """
    fields = {
        "model_type": model,
        "plugin": plugin,
        "symbol": symbol,
        "timeframe": timeframe,
        **span_of(days),
        "population": population,
        "generations": generations,
        "holdout": holdout,
        "training_params": parsed_params(param or []),
        "selection": selection,
        "crossover": crossover,
        "mutation": mutation,
        "seed": seed,
        "seeds": seeds,
        "name": name,
        "workers": workers,
        "requested_by": user(),
    }
    result = _evolve(_request(fields))
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result)
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)


def _evolve(request: "EvolveRequest") -> "EvolveResult":
    from clm_core.market.sources import MarketData
    from clm_core.search.request import parameter_space

    settings = settings_for_change()
    # before any server is started: a typing error must not cost ten seconds
    parameter_space(request)
    MarketData(settings.home).bars(request.symbol, request.timeframe, closed_by=datetime.now(UTC))
    with flow_of("flows.evolve.evolve", settings, lambda services: None) as (_, run):
        result: EvolveResult = run(request.name, request)
    return result


def _request(fields: dict[str, Any]) -> "EvolveRequest":
    from clm_core.domain.evolution import EvolveRequest

    request = validated(EvolveRequest, fields)
    # the name is printed at the start: an interrupted evolution can be continued under the name
    name = request.name or f"{request.model_id}_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    return request.model_copy(update={"name": name})


def _show(result: "EvolveResult") -> None:
    from clm_core.search.evolution_report import (
        comparison,
        generation_row,
        headline,
        retrain_command,
        warning,
    )

    console.print(f"{result.name}: {headline(result)}", highlight=False, soft_wrap=True)
    next_steps = []
    if result.generations:
        generations = Table(box=SIMPLE_HEAVY)
        for column in ("generation", "new", "best Sharpe", "mean"):
            generations.add_column(column, justify="right")
        for each in result.generations:
            generations.add_row(*generation_row(each))
        console.print(generations)
    if result.best is not None:
        table = Table("", box=SIMPLE_HEAVY)
        for column in ("defaults", f"best ({result.best.origin.value})"):
            table.add_column(column, justify="right")
        for row in comparison(result):
            table.add_row(*row)
        console.print(table)
        if caution := warning(result):
            console.print(f"[yellow]{caution}[/]", highlight=False, soft_wrap=True)
        next_steps = [("retrain", retrain_command(result))]
    if result.interrupted:
        next_steps.append(("continue", f"the same command with --name {result.name}"))
    for name, value in next_steps:
        console.print(f"  {name + ':':<10}{value}", highlight=False, soft_wrap=True)
