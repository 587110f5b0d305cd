"""`clm …`: heavy libraries are imported inside the commands, so that `clm --help` answers at once."""

import math
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clm_core.cli import (
    audit,
    data,
    db,
    deliveries,
    evolve,
    gate,
    maintenance,
    promotion,
    registry,
    shadow,
    stack,
    tokens,
    triggers,
    tune,
    watch,
)
from clm_core.cli.naming import VersionName, find_version
from clm_core.cli.output import AsJson, console, parsed_params, print_json, problem, user
from clm_core.cli.renamed import show_deprecations
from clm_core.cli.running import flow_of
from clm_core.domain.errors import CLMError, NotFound, NotRetrained
from clm_core.domain.vocabulary import ModelType

if TYPE_CHECKING:
    from clm_core.domain.evaluations import Check, EvaluationResult, Verdict
    from clm_core.domain.jobs import RetrainRequest
    from clm_core.domain.progress import Announce
    from clm_core.domain.triggers import Answer
    from clm_core.domain.versions import Lineage, ModelVersion
    from clm_core.platform.database import Database
    from clm_core.retraining.reproduce import Reproduction
    from clm_core.retraining.results import RetrainResult
    from clm_core.services import Services
    from clm_core.settings import Settings

app = typer.Typer(
    help="Continuous Learning Manager: retrain, judge and promote trading models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help takes longer to import than everything else that help needs
    add_completion=False,
)
app.add_typer(data.app, name="data")
app.add_typer(audit.app, name="audit")
app.add_typer(db.app, name="db")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(gate.app, name="gate")
app.add_typer(tokens.app, name="tokens")
app.add_typer(registry.app)
app.add_typer(promotion.app)
app.add_typer(triggers.app)
app.add_typer(tune.app)
app.add_typer(evolve.app)
app.add_typer(stack.app)
app.add_typer(maintenance.app)
app.add_typer(watch.app)
app.add_typer(shadow.app)

DEMO_DAYS = 840


def main() -> None:
    """Entry point of `clm`: prints errors and warnings of CLM as messages without tracebacks."""
    show_deprecations()
    try:
        app()
    except CLMError as error:
        Console(stderr=True).print(Text("Error: ", style="red"), error, sep="", markup=False, soft_wrap=True)
        sys.exit(1)


@app.command()
def demo() -> None:
    """Retrain, backtest and judge XGBoost and LightGBM on the bundled BTCUSD bars."""
    from clm_core.domain.jobs import RetrainRequest

    requests = [
        RetrainRequest(
            model_type=model_type, symbol="BTCUSD", dataset_span_days=DEMO_DAYS, requested_by=user()
        )
        for model_type in (ModelType.XGBOOST, ModelType.LIGHTGBM)
    ]
    _show_outcomes(_retrain(requests))


@app.command()
def retrain(
    model: Annotated[ModelType, typer.Option(help="The kind of model to train.")],
    symbol: Annotated[str, typer.Option(help="The market, as `clm data list` names it.")],
    plugin: Annotated[str | None, typer.Option(help="With --model other: which plug-in.")] = None,
    timeframe: Annotated[str, typer.Option(help="Length of a bar.")] = "1h",
    days: Annotated[int, typer.Option(min=1, help="Days of bars the training may see.")] = 365,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Training parameter; may be repeated.")
    ] = None,
    params_from: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY|CANDIDATE",
            help="The best parameters of a tuning, or a candidate's; --param still wins.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Retrain one model on the newest bars, backtest it out of sample and judge it."""
    from pydantic import ValidationError

    from clm_core.domain.jobs import RetrainRequest

    try:
        request = RetrainRequest(
            model_type=model,
            plugin=plugin,
            symbol=symbol,
            timeframe=timeframe,
            dataset_span_days=days,
            training_params=tune.best_params(params_from, model, plugin) | parsed_params(param or []),
            seed=seed,
            requested_by=user(),
        )
    except ValidationError as error:
        raise typer.BadParameter(problem(error)) from None
    outcomes = _retrain([request])
    if as_json:
        print_json([_outcome_json(outcome) for outcome in outcomes])
    else:
        _show_outcomes(outcomes)


@app.command()
def show(version: VersionName, as_json: AsJson = False) -> None:
    """One version: what it was trained on, how it did, and why it passed or not."""
    with _services() as services:
        found = find_version(services, version)
        judged = _judged(services, found)
        lineage = services.ledger.lineage(found.model_id, found.version)
    if as_json:
        evaluation, verdict = judged or (None, None)
        print_json(
            {
                "version": found.model_dump(mode="json"),
                "evaluation": evaluation.model_dump(mode="json") if evaluation else None,
                "verdict": verdict.model_dump(mode="json") if verdict else None,
                "lineage": lineage.model_dump(mode="json"),
            }
        )
        return
    console.print(_facts_table(found, lineage))
    if judged is None:
        console.print("Not judged yet.")
        return
    evaluation, verdict = judged
    console.print(
        f"{_decision(verdict)}, score {verdict.score:.1f} of 100, out of sample "
        f"{evaluation.period_start:%Y-%m-%d} to {evaluation.period_end:%Y-%m-%d}, after "
        f"{evaluation.fee_bps:g} bps fee and {evaluation.slippage_bps:g} bps slippage"
    )
    legs = Table("criterion", "measured", "required", box=SIMPLE_HEAVY)
    for leg in verdict.checks:
        legs.add_row(leg.label, _measured(leg), _limit(leg))
    console.print(legs)
    for reason in (*verdict.reasons, *verdict.warnings):
        console.print(f"  - {reason}", highlight=False)


@app.command()
def reproduce(version: VersionName, as_json: AsJson = False) -> None:
    """Train a version again from what it was made of, and compare; exits with 1 when positions differ."""
    from clm_core.retraining.reproduce import reproduce as train_again

    with _services() as services:
        found = train_again(services, find_version(services, version))
    if as_json:
        print_json(found.to_json())
    else:
        _show_reproduction(found)
    if not found.reproduced:
        sys.exit(1)


@app.command()
def report(
    version: VersionName,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Print the path of a version's tear sheet."""
    with _services() as services:
        found = find_version(services, version)
        path = services.reports / found.model_id / f"{found.version}.html"
        if not path.exists():
            services.registry.download(found.mlflow_run_id, f"report/{found.version}.html", path.parent)
    typer.echo(path)
    if open_it:
        typer.launch(path.as_uri())


@app.command()
def config() -> None:
    """The effective settings as JSON, secrets hidden."""
    from clm_core.settings import effective, load_settings

    print_json(effective(load_settings()))


@app.command(name="exec", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def exec_(context: typer.Context) -> None:
    """Run a command that finds our database and servers: `clm exec -- mlflow server`."""
    import subprocess

    from clm_core.platform.database import open_database
    from clm_core.platform.stack_state import prefect_environment, running

    if not context.args:
        raise typer.BadParameter("name a command: clm exec -- python trader.py")
    settings = _settings()
    with open_database(settings.home, settings.database_url) as database:
        state = running(settings.home)
        uri = database.url("mlflow", driver="psycopg")
        own_programs = str(Path(sys.executable).parent)
        environment = os.environ | {
            "PATH": os.pathsep.join([own_programs, os.environ.get("PATH", os.defpath)]),
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_BACKEND_STORE_URI": uri,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PREFECT_DEFAULT_WORK_POOL_NAME": settings.deploy.work_pool,
            **(prefect_environment(settings.home, state) if state else {}),
        }
        program = shutil.which(context.args[0], path=environment["PATH"])
        if program is None:
            raise typer.BadParameter(f"there is no command {context.args[0]}")
        done = subprocess.run([program, *context.args[1:]], env=environment, check=False)
        sys.exit(done.returncode)


def _settings() -> "Settings":
    from clm_core.settings import load_settings

    return load_settings()


def _services(
    settings: "Settings | None" = None, announce: "Announce" = lambda step, share: None
) -> AbstractContextManager["Services"]:
    from clm_core.services import open_services

    return open_services(settings or _settings(), announce)


def _retrain(requests: list["RetrainRequest"]) -> list["RetrainResult"]:
    """Run the flow for each request under one Prefect server, with progress on the terminal."""
    from clm_core.platform.database import open_database

    settings = _settings()
    for request in requests:
        # before anything is started: a typo must not cost ten seconds
        _require_valid(settings, request)
    with open_database(settings.home, settings.database_url) as database:
        for request in requests:
            _require_members(settings, database, request)
        with flow_of("flows.retrain.retrain", settings, lambda clm: clm.registry.connect()) as (_, run):
            return [
                _granted(run(f"{request.kind} {request.symbol} {request.timeframe}", request))
                for request in requests
            ]


def _require_valid(settings: "Settings", request: "RetrainRequest") -> None:
    """
    Raises:
        CLMError: there are no such bars, or it cannot be trained with these parameters.
    """
    from clm_core.market.sources import MarketData
    from clm_core.models import catalog

    catalog.recipe(request.model_type, request.training_params, settings.costs, request.plugin)
    MarketData(settings.home).bars(request.symbol, request.timeframe, closed_by=datetime.now(UTC))


def _require_members(settings: "Settings", database: "Database", request: "RetrainRequest") -> None:
    """The ledger alone knows an ensemble's members.

    Raises:
        CLMError: one cannot be a member.
    """
    if request.model_type is not ModelType.ENSEMBLE:
        return
    from clm_core.ledger.store import Ledger
    from clm_core.market.sources import MarketData
    from clm_core.retraining.ensembles import resolve_members
    from clm_core.services import open_ledger

    bars = MarketData(settings.home).bars(request.symbol, request.timeframe, closed_by=datetime.now(UTC))
    named = request.model_copy(update={"symbol": bars.symbol, "timeframe": bars.timeframe.value})
    with open_ledger(database) as engine:
        resolve_members(Ledger(engine), named)


def _granted(result: "RetrainResult | Answer") -> "RetrainResult":
    from clm_core.domain.triggers import Answer

    if isinstance(result, Answer):
        raise NotRetrained(f"{result.model_id} was not retrained, the request was {result.sentence}.")
    return result


def _judged(services: "Services", version: "ModelVersion") -> "tuple[EvaluationResult, Verdict] | None":
    try:
        return services.ledger.evaluation(version.model_id, version.version)
    except NotFound:
        return None


PERCENT = {"win_rate", "max_drawdown", "share_of_one_side"}
COUNTED = {"trades", "track_record_bars"}
TONES = {"pass": "green", "inconclusive": "yellow", "fail": "red"}


def _show_outcomes(outcomes: list["RetrainResult"]) -> None:
    """A column a model, a row a criterion; the facts that decide nothing stand below."""
    table = Table(box=SIMPLE_HEAVY)
    table.add_column("out of sample, after costs")
    table.add_column("required", justify="right")
    for outcome in outcomes:
        table.add_column(outcome.version.model_id, justify="right")
    measured = [{leg.name: leg for leg in outcome.verdict.checks} for outcome in outcomes]
    # of the one that was asked most: a model without a champion is not compared with one
    for asked in max(measured, key=len).values():
        legs = [found.get(asked.name) for found in measured]
        limits = dict.fromkeys(_limit(leg) for leg in legs if leg is not None)
        table.add_row(
            asked.label, " / ".join(limits), *("" if leg is None else _measured(leg) for leg in legs)
        )
    table.add_section()
    table.add_row("net return", "", *(f"{outcome.metrics.total_return:+.1%}  " for outcome in outcomes))
    table.add_row(
        "buying and holding", "", *(f"{outcome.buy_and_hold.total_return:+.1%}  " for outcome in outcomes)
    )
    table.add_row("score, 0 to 100", "", *(f"{outcome.verdict.score:.1f}  " for outcome in outcomes))
    table.add_section()
    table.add_row("verdict", "", *(_decision(outcome.verdict) + "  " for outcome in outcomes))
    console.print(table)
    for outcome in outcomes:
        _show_outcome(outcome)


def _show_outcome(outcome: "RetrainResult") -> None:
    version = outcome.version
    console.print(
        f"[bold]{version.model_id}[/] {version.version}: {_decision(outcome.verdict)}", highlight=False
    )
    from clm_core.retraining.pages import spread

    for reason in (*outcome.verdict.reasons, *outcome.verdict.warnings, *spread(outcome.verdict)):
        console.print(f"  - {reason}", highlight=False)
    console.print(f"  load it:  {version.model_path}", highlight=False, soft_wrap=True)
    console.print(f"  report:   {outcome.report.html}", highlight=False, soft_wrap=True)
    console.print()


def _decision(verdict: "Verdict") -> str:
    return f"[{TONES[verdict.decision.value]}]{verdict.decision.value.upper()}[/]"


def _limit(leg: "Check") -> str:
    if math.isinf(leg.limit):
        return "never"
    return f"{leg.comparison} {_shown(leg.name, leg.limit)}"


def _measured(leg: "Check") -> str:
    return f"{_shown(leg.name, leg.value)} " + ("[green]✓[/]" if leg.passed else "[red]✗[/]")


def _shown(criterion: str, value: float) -> str:
    if criterion in COUNTED:
        return f"{value:,.0f}"
    return f"{value:.1%}" if criterion in PERCENT else f"{value:.2f}"


def _outcome_json(outcome: "RetrainResult") -> dict[str, Any]:
    return {
        "version": outcome.version.model_dump(mode="json"),
        "verdict": outcome.verdict.model_dump(mode="json"),
        "report": str(outcome.report.html),
    }


def _facts_table(version: "ModelVersion", lineage: "Lineage") -> Table:
    from clm_core.models.ensemble import readable

    table = Table(
        show_header=False,
        box=SIMPLE_HEAVY,
        title=f"{version.model_id} {version.version}",
        title_justify="left",
    )
    for name, value in (
        ("status", version.status.value),
        ("load it with", version.model_path),
        ("registered", f"{version.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("served before it", version.parent_version or "none"),
        ("training job", f"{lineage.job.id}, {lineage.job.trigger_reason}, by {lineage.job.requested_by}"),
        ("trained on", f"{version.symbol} {version.timeframe}, hash {version.data_hash}"),
        ("of the series", f"hash {lineage.data_snapshot}"),
        ("seed", str(version.seed)),
        ("parameters", _pairs(readable(version.model_type, version.params))),
        *(("member", member) for member in _members(version)),
        ("code", version.code_version),
        ("libraries", _pairs(version.environment)),
        ("bundle digest", version.bundle_digest),
    ):
        table.add_row(name, value)
    return table


def _members(version: "ModelVersion") -> list[str]:
    """Of an ensemble: each version with its weight, and what it was asked for as."""
    if version.model_type is not ModelType.ENSEMBLE:
        return []
    from clm_core.models.ensemble import EnsembleParams, Member

    measured = version.train_metrics
    return [
        f"{each.name}, weight {measured[f'weight.{each.model_id}.{each.version}']:.3f}"
        + (f", asked for as {each.asked}" if each.asked != each.name else "")
        for each in EnsembleParams.parse(version.params).members
        if isinstance(each, Member)
    ]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "not recorded"


def _show_reproduction(found: "Reproduction") -> None:
    if found.differences:
        table = Table("what differs", "then", "now", box=SIMPLE_HEAVY)
        for difference in found.differences:
            table.add_row(difference.what, difference.then, difference.now)
        console.print(table)
    positions = found.positions
    if found.reproduced:
        console.print(f"[green]Reproduced[/]: the same position on all {positions.bars:,} bars.")
    else:
        console.print(
            f"[red]Not reproduced[/]: other positions on {positions.differing:,} of {positions.bars:,} bars, "
            f"first at {positions.first:%Y-%m-%d %H:%M} UTC, by up to {positions.largest:.4g}.",
            highlight=False,
        )
