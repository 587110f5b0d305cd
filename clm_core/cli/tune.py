"""`clm tune`: search for better training parameters."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.exit_codes import ExitCode
from clm_core.cli.output import AsJson, console, parsed_params, print_json, user
from clm_core.cli.running import flow_of, services_to_look
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

if TYPE_CHECKING:
    from clm_core.domain.kinds import Kind
    from clm_core.domain.tuning import TuneRequest, TuneResult
    from clm_core.services import Services
    from clm_core.settings import Settings

app = typer.Typer(rich_markup_mode=None)
DEFINING_OPTIONS = (
    "model",
    "plugin",
    "symbol",
    "timeframe",
    "days",
    "holdout",
    "param",
    "seed",
    "seeds",
    "sampler",
    "study",
)
"""Options that define a study; a resumed study keeps their values."""


@app.command()
def tune(
    context: typer.Context,
    model: Annotated[KindName | None, MODEL] = None,
    plugin: Plugin = None,
    symbols: Symbols = None,
    symbol: Annotated[str | None, SYMBOL] = None,
    timeframe: Timeframe = "1h",
    days: Days = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Total number of trials.", show_default="50")
    ] = None,
    holdout: Holdout = 0.2,
    param: FixedParams = None,
    seed: Seed = 0,
    seeds: Seeds = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study; an existing study with the same definition is continued."),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            metavar="tpe|gp",
            help="Choice of the next parameters; gp (Gaussian process) where a trial takes seconds.",
        ),
    ] = "tpe",
    resume: Annotated[
        str | None, typer.Option(metavar="STUDY", help="Continue this study with its own definition.")
    ] = None,
    workers: ParallelWorkers = None,
    timeout: Annotated[float | None, typer.Option(metavar="MINUTES", help="Time limit.")] = None,
    on: On = "local",
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Search for better training parameters. Every trial is counted in the trial ledger.

    The best parameters are evaluated on held-out bars at the end; `clm retrain --params-from STUDY` trains
    a model with the best parameters. Ctrl-C stops the search and keeps the results so far.
    """
    if (resume is None) == (model is None or symbol is None):
        raise typer.BadParameter("give --model and --symbol, or --resume STUDY")
    if resume is not None:
        _require_own_definition(context)
    run_fields: dict[str, Any] = {
        "workers": workers,
        "timeout_minutes": timeout,
        "on": on,
        "ray_address": ray_address,
        "requested_by": user(),
        **({} if trials is None else {"trials": trials}),
    }
    definition = {
        "model_type": model,
        "plugin": plugin,
        "symbol": symbol,
        "timeframe": timeframe,
        **span_of(days),
        "holdout": holdout,
        "training_params": parsed_params(param or []),
        "seed": seed,
        "seeds": seeds,
        "sampler": sampler,
        "study": study,
    }
    result = _tune(resume, definition, run_fields)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result)
    if result.ended == "interrupted":
        sys.exit(ExitCode.INTERRUPTED)


def _require_own_definition(context: typer.Context) -> None:
    """
    Raises:
        BadParameter: the command line changes the definition of the resumed study.
    """
    sources = {name: context.get_parameter_source(name) for name in DEFINING_OPTIONS}
    if given := [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]:
        options = ", ".join(f"--{name}" for name in given)
        raise typer.BadParameter(f"--resume continues a study as it began: leave out {options}")


def best_params(source: str | None, model: str, plugin: str | None) -> dict[str, Any]:
    """Best parameters of a study, or parameters of a candidate; empty if no source is named.

    Raises:
        InvalidTrainingParams: the study or candidate belongs to another model type.
    """
    if source is None:
        return {}
    from clm_core.domain.errors import InvalidTrainingParams
    from clm_core.domain.kinds import Kind
    from clm_core.models import catalog

    with services_to_look() as services:
        kind, params = _params_of(services, source)
    if kind != (requested := Kind.named(model, plugin)):
        raise InvalidTrainingParams(
            f"{source} belongs to {kind}, and its parameters do not apply to {requested}: name another study "
            "or candidate"
        )
    return catalog.stored_params(kind.model_type, params, kind.plugin)


def _params_of(services: "Services", source: str) -> "tuple[Kind, dict[str, Any]]":
    from clm_core.search.tuning import best_params

    try:
        candidate = services.ledger.candidates.get(UUID(source))
    except ValueError:
        tuning, params = best_params(services, source)
        return tuning.kind, params
    return candidate.kind, candidate.params


def _tune(resume: str | None, definition: dict[str, Any], run_fields: dict[str, Any]) -> "TuneResult":
    from clm_core.domain.tuning import TuneRequest
    from clm_core.platform.object_storage import market_data
    from clm_core.search.tuning import check, require_libraries

    settings = settings_for_change()
    # before the database is opened: a typing error must not cost seconds
    if resume is None:
        request = validated(TuneRequest, definition | run_fields)
        check(request)
    else:
        request = _continued(settings, resume, run_fields)
        require_libraries(request)
    market = market_data(settings.home, settings.storage)
    market.bars(request.symbol, request.timeframe, closed_by=datetime.now(UTC))
    with flow_of("tune", settings) as (_, run):
        result: TuneResult = run(f"{request.kind} {request.symbol}", request)
    return result


def _continued(settings: "Settings", study: str, run_fields: dict[str, Any]) -> "TuneRequest":
    from clm_core.search.tuning import continued
    from clm_core.services import open_services

    with open_services(settings) as services:
        return continued(services, study, **run_fields)


def _show(result: "TuneResult") -> None:
    from clm_core.domain.tuning import StopReason
    from clm_core.search.tuning_report import comparison, headline, retrain_command, warning

    console.print(f"{result.study}: {headline(result)}", highlight=False, soft_wrap=True)
    next_steps = []
    if result.best is not None:
        table = Table("", box=SIMPLE_HEAVY)
        for name in ("defaults", f"trial {result.best.number}, the best"):
            table.add_column(name, justify="right")
        for row in comparison(result):
            table.add_row(*row)
        console.print(table)
        next_steps = [("retrain", retrain_command(result))]
        if caution := warning(result):
            console.print(f"[yellow]{caution}[/]", highlight=False, soft_wrap=True)
    if result.ended is not StopReason.ALL_TRIALS:
        next_steps.append(("continue", f"clm tune --resume {result.study}"))
    for name, value in (*next_steps, ("report", result.report)):
        console.print(f"  {name + ':':<10}{value}", highlight=False, soft_wrap=True)
