"""`clm evolve`: breed training parameters or rule strategies, generation after generation."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.exit_codes import ExitCode
from clm_core.cli.output import AsJson, console, parsed_params, print_json, user
from clm_core.cli.running import flow_of
from clm_core.cli.search_options import (
    MODEL,
    SYMBOL,
    Days,
    FixedParams,
    Holdout,
    KindName,
    On,
    ParallelWorkers,
    Plugin,
    RayAddress,
    Seed,
    Seeds,
    Symbols,
    Timeframe,
    span_of,
    validated,
)
from clm_core.cli.settings_in_force import settings_for_change
from clm_core.cli.strategies import evolve_strategies, families_of, verify_search

if TYPE_CHECKING:
    from clm_core.domain.evolution import EvolveRequest, EvolveResult

app = typer.Typer(rich_markup_mode=None)


POPULATION = 20
GENERATIONS = 10
"""Defaults of an evolution of training parameters."""


@app.command()
def evolve(
    model: Annotated[KindName | None, MODEL] = None,
    symbol: Annotated[str | None, SYMBOL] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME]|all",
            help="Instead of --model: rule strategies to evolve, by several objectives.",
        ),
    ] = None,
    plugin: Plugin = None,
    symbols: Symbols = None,
    timeframe: Timeframe = "1h",
    days: Days = None,
    population: Annotated[
        int | None,
        typer.Option(
            min=4, max=1000, help="Candidates of a generation.", show_default="20; 100 for strategies"
        ),
    ] = None,
    generations: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Number of generations bred after generation 0, which is random.",
            show_default="10; 50 for strategies",
        ),
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME]",
            help="With --strategy: sharpe_ratio, max_drawdown, win_rate, profit_factor; or score alone.",
            show_default="sharpe_ratio,max_drawdown,win_rate",
        ),
    ] = None,
    holdout: Holdout = 0.2,
    param: FixedParams = None,
    selection: Annotated[
        str, typer.Option(metavar="tournament|roulette", help="Selection of parents.")
    ] = "tournament",
    crossover: Annotated[
        str, typer.Option(metavar="uniform|single-point|average", help="Crossover of two parents.")
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
    on: On = "local",
    ray_address: RayAddress = None,
    ensemble: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=20,
            help="With --strategy: retrain so many strategies of the front with different returns, and an "
            "ensemble of them.",
        ),
    ] = None,
    combine: Annotated[
        str,
        typer.Option(
            metavar="vote|stack|regime",
            help="With --ensemble: weighted vote, stacking, or a pool of members for each regime.",
        ),
    ] = "vote",
    verify: Annotated[
        str | None,
        typer.Option(
            metavar="SEARCH", help="Compute a search for strategies again and compare it, to the last bit."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Breed better training parameters or rule strategies. Every candidate is counted in the trial ledger.

    The candidates are proposals only: `clm retrain --params-from CANDIDATE` trains and judges a candidate.
    Ctrl-C stops the evolution and keeps the results so far.
    """
    if verify is not None:
        verify_search(verify, {"on": on, "ray_address": ray_address, "workers": workers}, as_json)
        return
    if (model is None) == (strategy is None) or symbol is None:
        raise typer.BadParameter("give --symbol and either --model or --strategy, or --verify SEARCH")
    fields = {
        "symbol": symbol,
        "timeframe": timeframe,
        **span_of(days),
        **_given(population=population, generations=generations),
        "holdout": holdout,
        "training_params": parsed_params(param or []),
        "selection": selection,
        "crossover": crossover,
        "mutation": mutation,
        "seed": seed,
        "name": name,
        "workers": workers,
        "on": on,
        "ray_address": ray_address,
        "requested_by": user(),
    }
    if strategy is not None:
        _refuse_with_strategy(plugin=plugin, seeds=seeds)
        named = None if objectives is None else [each.strip() for each in objectives.split(",")]
        fields |= {"families": families_of(strategy)} | _given(objectives=named)
        evolve_strategies(fields, ensemble, combine, as_json)
        return
    if ensemble is not None:
        raise typer.BadParameter("--ensemble belongs to --strategy: retrain the members, then the ensemble")
    if objectives is not None:
        raise typer.BadParameter("--objectives belongs to --strategy: training parameters have one, Sharpe")
    defaults = {"population": POPULATION, "generations": GENERATIONS}
    own = {"model_type": model, "plugin": plugin, "seeds": seeds}
    result = _evolve(_request(defaults | fields | own))
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result)
    if result.interrupted:
        sys.exit(ExitCode.INTERRUPTED)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse_with_strategy(**options: Any) -> None:
    if given := _given(**options):
        raise typer.BadParameter(
            f"--strategy needs no {', '.join(f'--{name}' for name in given)}: leave it out"
        )


def _evolve(request: "EvolveRequest") -> "EvolveResult":
    from clm_core.platform.object_storage import market_data
    from clm_core.search.evolution import check

    settings = settings_for_change()
    # before the database is opened: a typing error must not cost seconds
    check(request)
    market = market_data(settings.home, settings.storage)
    market.bars(request.symbol, request.timeframe, closed_by=datetime.now(UTC))
    with flow_of("evolve", settings) as (_, run):
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
    for name, value in (*next_steps, ("report", str(result.report))):
        console.print(f"  {name + ':':<10}{value}", highlight=False, soft_wrap=True)
