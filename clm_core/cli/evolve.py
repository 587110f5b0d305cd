"""`clm evolve`: breed training parameters, generation after generation."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.output import AsJson, console, parsed_params, print_json, problem, user
from clm_core.cli.running import flow_of
from clm_core.cli.tune import INTERRUPTED
from clm_core.domain.vocabulary import ModelType

if TYPE_CHECKING:
    from clm_core.domain.evolution import EvolveRequest, EvolveResult

app = typer.Typer(rich_markup_mode=None)


@app.command()
def evolve(
    model: Annotated[ModelType, typer.Option(help="The kind of model to evolve parameters for.")],
    symbol: Annotated[str, typer.Option(help="The market, as `clm data list` names it.")],
    plugin: Annotated[str | None, typer.Option(help="With --model other: which plug-in.")] = None,
    timeframe: Annotated[str, typer.Option(help="Length of a bar.")] = "1h",
    days: Annotated[int, typer.Option(min=1, help="Days of bars, counted back from the newest.")] = 365,
    population: Annotated[int, typer.Option(min=4, max=500, help="Sets of parameters in a generation.")] = 20,
    generations: Annotated[
        int, typer.Option(min=1, max=1000, help="Generations bred after generation 0, which is random.")
    ] = 10,
    holdout: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of the bars, the newest, kept from the search.")
    ] = 0.2,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Training parameter that does not evolve; may be repeated."),
    ] = None,
    selection: Annotated[
        str, typer.Option(metavar="tournament|roulette", help="Who has children.")
    ] = "tournament",
    crossover: Annotated[
        str, typer.Option(metavar="uniform|single-point", help="How two are crossed.")
    ] = "uniform",
    mutation: Annotated[
        str, typer.Option(metavar="gaussian|uniform", help="How a number changes.")
    ] = "gaussian",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search, and first of each candidate.")] = 0,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Seeds each candidate is tried with.", show_default="as a retrain of its kind"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Its name; under it, one that was stopped goes on if asked the same.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Candidates computed at a time.", show_default="one a processor")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Breed better training parameters; every candidate is counted against luck. Ctrl-C keeps what is done.

    What comes out is proposed, and nothing else: `clm retrain --params-from CANDIDATE` trains and judges it.
    """
    asked = {
        "model_type": model,
        "plugin": plugin,
        "symbol": symbol,
        "timeframe": timeframe,
        "dataset_span_days": days,
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
    result = _evolve(_request(asked))
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result)
    if result.interrupted:
        sys.exit(INTERRUPTED)


def _evolve(request: "EvolveRequest") -> "EvolveResult":
    from clm_core.market.sources import MarketData
    from clm_core.search.tuning import open_space
    from clm_core.settings import load_settings

    settings = load_settings()
    # before anything is started: a typo must not cost ten seconds
    open_space(request, settings.costs)
    MarketData(settings.home).bars(request.symbol, request.timeframe, closed_by=datetime.now(UTC))
    with flow_of("flows.evolve.evolve", settings, lambda services: None) as (_, run):
        result: EvolveResult = run(request.name, request)
    return result


def _request(asked: dict[str, Any]) -> "EvolveRequest":
    from pydantic import ValidationError

    from clm_core.domain.evolution import EvolveRequest

    try:
        request = EvolveRequest.model_validate(asked)
    except ValidationError as error:
        raise typer.BadParameter(problem(error)) from None
    # shown while it runs: whoever ends it can go on under this name
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
    told = []
    if result.generations:
        generations = Table(box=SIMPLE_HEAVY)
        for column in ("generation", "new", "best Sharpe", "mean"):
            generations.add_column(column, justify="right")
        for each in result.generations:
            generations.add_row(*generation_row(each))
        console.print(generations)
    if result.best is not None:
        table = Table("", box=SIMPLE_HEAVY)
        for column in ("defaults", f"the best ({result.best.origin.value})"):
            table.add_column(column, justify="right")
        for row in comparison(result):
            table.add_row(*row)
        console.print(table)
        if advice := warning(result):
            console.print(f"[yellow]{advice}[/]", highlight=False, soft_wrap=True)
        told = [("retrain", retrain_command(result))]
    if result.interrupted:
        told.append(("go on", f"the same command with --name {result.name}"))
    for name, value in told:
        console.print(f"  {name + ':':<10}{value}", highlight=False, soft_wrap=True)
