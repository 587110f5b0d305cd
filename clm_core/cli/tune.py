"""`clm tune`: search for better training parameters."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.output import AsJson, console, parsed_params, print_json, problem, user
from clm_core.cli.running import flow_of
from clm_core.domain.vocabulary import ModelType

if TYPE_CHECKING:
    from clm_core.domain.kinds import Kind
    from clm_core.domain.tuning import TuneRequest, TuneResult
    from clm_core.services import Services
    from clm_core.settings import Settings

app = typer.Typer(rich_markup_mode=None)
ASKED = (
    "model",
    "plugin",
    "symbol",
    "timeframe",
    "days",
    "holdout",
    "param",
    "seed",
    "seeds",
    "study",
)
"""Options that make a study what it is."""
INTERRUPTED = 130
"""What a command ends with that Ctrl-C has stopped."""


@app.command()
def tune(
    context: typer.Context,
    model: Annotated[ModelType | None, typer.Option(help="The kind of model to tune.")] = None,
    plugin: Annotated[str | None, typer.Option(help="With --model other: which plug-in.")] = None,
    symbol: Annotated[str | None, typer.Option(help="The market, as `clm data list` names it.")] = None,
    timeframe: Annotated[str, typer.Option(help="Length of a bar.")] = "1h",
    days: Annotated[int, typer.Option(min=1, help="Days of bars, counted back from the newest.")] = 365,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Sets of parameters to try in all.", show_default="50")
    ] = None,
    holdout: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of the bars, the newest, kept from the search.")
    ] = 0.2,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Training parameter that is not searched; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search, and first of each trial.")] = 0,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Seeds each set of parameters is tried with.", show_default="as a retrain of its kind"
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Its name; one that exists is continued, if asked the same.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="STUDY", help="Continue this study as it began.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials computed at a time.", show_default="one a processor")
    ] = None,
    timeout: Annotated[float | None, typer.Option(metavar="MINUTES", help="Stop after so long.")] = None,
    on: Annotated[str, typer.Option(metavar="local|ray", help="Where trials are computed.")] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster, as host:6379.", show_default="RAY_ADDRESS, or on this machine"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search for better training parameters; every trial is counted against luck. Ctrl-C keeps what is done.

    The best are tried on bars that the search has not seen, and `clm retrain --params-from STUDY` uses them.
    """
    if (resume is None) == (model is None or symbol is None):
        raise typer.BadParameter("give --model and --symbol, or --resume STUDY")
    if resume is not None:
        _require_as_it_began(context)
    running: dict[str, Any] = {
        "workers": workers,
        "timeout_minutes": timeout,
        "on": on,
        "ray_address": ray_address,
        "requested_by": user(),
        **({} if trials is None else {"trials": trials}),
    }
    asked = {
        "model_type": model,
        "plugin": plugin,
        "symbol": symbol,
        "timeframe": timeframe,
        "dataset_span_days": days,
        "holdout": holdout,
        "training_params": parsed_params(param or []),
        "seed": seed,
        "seeds": seeds,
        "study": study,
    }
    result = _tune(resume, asked, running)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result)
    if result.ended == "interrupted":
        sys.exit(INTERRUPTED)


def _require_as_it_began(context: typer.Context) -> None:
    """A study that is continued keeps what it was asked for."""
    sources = {name: context.get_parameter_source(name) for name in ASKED}
    if told := [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]:
        others = ", ".join(f"--{name}" for name in told)
        raise typer.BadParameter(f"--resume goes on with a study as it began: leave out {others}")


def best_params(source: str | None, model_type: ModelType, plugin: str | None) -> dict[str, Any]:
    """What a study has found, or a candidate proposes, for this kind of model; nothing where none is named.

    Raises:
        InvalidTrainingParams: it was about another kind of model.
    """
    if source is None:
        return {}
    from clm_core.domain.errors import InvalidTrainingParams
    from clm_core.domain.kinds import Kind
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as services:
        kind, params = _found(services, source)
    if kind != (asked := Kind(model_type, plugin)):
        raise InvalidTrainingParams(
            f"{source} is about {kind}, its parameters are none of {asked}: name another"
        )
    return params


def _found(services: "Services", source: str) -> "tuple[Kind, dict[str, Any]]":
    from clm_core.search.tuning import best_params

    try:
        candidate = services.ledger.candidates.get(UUID(source))
    except ValueError:
        tuning, params = best_params(services, source)
        return tuning.kind, params
    return candidate.kind, candidate.params


def _tune(resume: str | None, asked: dict[str, Any], running: dict[str, Any]) -> "TuneResult":
    from clm_core.market.sources import MarketData
    from clm_core.search.tuning import check
    from clm_core.settings import load_settings

    settings = load_settings()
    request = _request(asked | running) if resume is None else _continued(settings, resume, running)
    # before anything is started: a typo must not cost ten seconds
    check(request, settings.costs)
    MarketData(settings.home).bars(request.symbol, request.timeframe, closed_by=datetime.now(UTC))
    with flow_of("flows.tune.tune", settings, lambda services: __import__("optuna")) as (_, run):
        result: TuneResult = run(f"{request.kind} {request.symbol}", request)
    return result


def _continued(settings: "Settings", study: str, running: dict[str, Any]) -> "TuneRequest":
    from clm_core.search.tuning import continued
    from clm_core.services import open_services

    with open_services(settings) as services:
        return continued(services, study, **running)


def _request(asked: dict[str, Any]) -> "TuneRequest":
    from pydantic import ValidationError

    from clm_core.domain.tuning import TuneRequest

    try:
        return TuneRequest.model_validate(asked)
    except ValidationError as error:
        raise typer.BadParameter(problem(error)) from None


def _show(result: "TuneResult") -> None:
    from clm_core.domain.tuning import Ended
    from clm_core.search.tuning_report import comparison, headline, retrain_command, warning

    console.print(f"{result.study}: {headline(result)}", highlight=False, soft_wrap=True)
    told = []
    if result.best is not None:
        table = Table("", box=SIMPLE_HEAVY)
        for name in ("defaults", f"trial {result.best.number}, the best"):
            table.add_column(name, justify="right")
        for row in comparison(result):
            table.add_row(*row)
        console.print(table)
        told = [("retrain", retrain_command(result))]
        if advice := warning(result):
            console.print(f"[yellow]{advice}[/]", highlight=False, soft_wrap=True)
    if result.ended is not Ended.ALL_TRIALS:
        told.append(("go on", f"clm tune --resume {result.study}"))
    for name, value in (*told, ("report", result.report)):
        console.print(f"  {name + ':':<10}{value}", highlight=False, soft_wrap=True)
