"""`clm retrain`, `clm demo`: training, backtest and verdict in the terminal."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clm_core.cli import tune
from clm_core.cli.output import AsJson, console, parsed_params, print_json, problem, user
from clm_core.cli.running import flow_of
from clm_core.cli.search_options import (
    Again,
    Days,
    KindName,
    Plugin,
    Timeframe,
    TrainingParams,
    TrainingSeed,
    span_of,
)
from clm_core.cli.settings_in_force import require_home, settings_for_change
from clm_core.cli.verdicts import colored_decision, colored_headline, marked_estimate, symbols_table
from clm_core.domain.measures import percent, ratio, signed_percent
from clm_core.domain.vocabulary import ModelType

if TYPE_CHECKING:
    from clm_core.domain.jobs import RetrainRequest
    from clm_core.retraining.results import RetrainResult
    from clm_core.services import Services

app = typer.Typer(rich_markup_mode=None)

DEMO_DAYS = 840
PLANTED_NOTES = (
    "{symbol} is a made-up market: the volume announces the drift of the next day, an edge to learn.",
    "BTCUSD is real: results like these are what luck would show.",
    "What would leaving it to the machine have done? A year in a minute:",
    "  clm replay --model xgboost --symbol BTCUSD --from 2018-10-01 --to 2019-10-01 --open",
)


@app.command()
def demo(as_json: AsJson = False) -> None:
    """Retrain, backtest and judge models on bundled BTCUSD bars, and one on a made-up market with an edge."""
    from clm_core.domain.jobs import RetrainRequest
    from clm_core.platform.object_storage import market_data

    settings = settings_for_change()
    market = market_data(settings.home, settings.storage)
    planted = market.add_planted(DEMO_DAYS * 24, datetime.now(UTC)).symbol
    series = [(ModelType.XGBOOST, "BTCUSD"), (ModelType.LIGHTGBM, "BTCUSD"), (ModelType.XGBOOST, planted)]
    requests = [
        RetrainRequest(
            model_type=model_type,
            symbol=symbol,
            dataset_span_days=DEMO_DAYS,
            requested_by=user(),
            # a second demo shows the same again
            again=True,
        )
        for model_type, symbol in series
    ]
    outcomes = retrain_all(requests)
    if as_json:
        print_json([outcome_json(outcome) for outcome in outcomes])
        return
    show_outcomes(outcomes)
    for note in PLANTED_NOTES:
        console.print(note.format(symbol=planted), highlight=False)


@app.command()
def retrain(
    model: Annotated[KindName, typer.Option(help="Kind of model to train.")],
    symbol: Annotated[
        str | None, typer.Option(help="Market, as in `clm data list`, or a pool under [pools].")
    ] = None,
    symbols: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Markets of a pool: one model of all of them, with --pool."),
    ] = None,
    pool: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the pool of --symbols.")] = None,
    plugin: Plugin = None,
    timeframe: Timeframe = "1h",
    days: Days = None,
    param: TrainingParams = None,
    params_from: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY|CANDIDATE",
            help="Parameters of a tuning study's best trial or of a candidate; --param overrides.",
        ),
    ] = None,
    seed: TrainingSeed = 0,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Retrain a model on the newest bars, backtest it out of sample and judge it."""
    from pydantic import ValidationError

    from clm_core.domain.jobs import RetrainRequest

    try:
        request = RetrainRequest.model_validate(
            {
                "model_type": model,
                "plugin": plugin,
                **_market(symbol, symbols, pool),
                "timeframe": timeframe,
                **span_of(days),
                "training_params": tune.best_params(params_from, model, plugin) | parsed_params(param or []),
                "seed": seed,
                "requested_by": user(),
                "again": again,
            }
        )
    except ValidationError as error:
        raise typer.BadParameter(problem(error)) from None
    outcomes = retrain_all([request])
    if as_json:
        print_json([outcome_json(outcome) for outcome in outcomes])
    else:
        show_outcomes(outcomes)


def _market(symbol: str | None, symbols: str | None, pool: str | None) -> dict[str, Any]:
    """Fields of a request that name a market, or the pool and its symbols."""
    if symbols is None and pool is None:
        if symbol is None:
            raise typer.BadParameter("name a market with --symbol, or a pool with --symbols and --pool")
        return {"symbol": symbol}
    if symbols is None or pool is None:
        raise typer.BadParameter(
            "a pool needs --symbols and --pool: --symbols BTCUSDT,ETHUSDT,SOLUSDT --pool CRYPTO3"
        )
    if symbol is not None:
        raise typer.BadParameter("--symbol names one market and --symbols a pool: give one of them")
    return {"symbol": pool, "symbols": tuple(each.strip() for each in symbols.split(",") if each.strip())}


def retrain_all(requests: list["RetrainRequest"]) -> list["RetrainResult"]:
    """Runs the flow for each request, with progress on the terminal."""
    from clm_core.ledger.store import Ledger
    from clm_core.platform.database import open_database
    from clm_core.retraining.requests import granted, require_members, require_valid
    from clm_core.services import open_ledger

    settings = settings_for_change()
    now = datetime.now(UTC)
    for request in requests:
        # before the database is opened: a typing error must not cost seconds
        require_valid(settings, request, now)
    with open_database(settings.home, settings.database_url) as database:
        if any(request.model_type is ModelType.ENSEMBLE for request in requests):
            with open_ledger(database) as engine:
                for request in requests:
                    require_members(settings, Ledger(engine), request, now)
        with flow_of("retrain", settings, lambda clm: clm.registry.connect()) as (clm, run):
            _state_windows(clm, requests)
            _state_old_bars(clm, requests)
            return [
                granted(clm.ledger, run(f"{request.kind} {request.symbol} {request.timeframe}", request))
                for request in requests
            ]


def run_pending(job_id: UUID) -> list["RetrainResult"]:
    """Runs the flow for a pending job, with progress on the terminal.

    Raises:
        IllegalTransition: the job is not pending, or another job of the model is in progress.
        NotFound: the job does not exist.
    """
    from clm_core.domain.jobs import RetrainRequest
    from clm_core.retraining.requests import granted
    from clm_core.services import open_services
    from clm_core.triggers import pending

    settings = settings_for_change()
    require_home(settings)
    with open_services(settings) as services:
        # before the libraries are loaded
        pending.require_startable(services, job_id)
    with flow_of("retrain", settings, lambda clm: clm.registry.connect()) as (clm, run):
        job = pending.reserve(clm, job_id)
        request = RetrainRequest.model_validate(job.model_dump(include=set(RetrainRequest.model_fields)))
        return [granted(clm.ledger, run(f"{job.kind} {job.symbol} {job.timeframe}", request, job.id))]


def _state_old_bars(clm: "Services", requests: list["RetrainRequest"]) -> None:
    """Prints the age of stale bars before a training spends minutes on them."""
    from clm_core.retraining.bars_age import stale_markets

    ages = (age for request in requests for age in stale_markets(clm, request))
    for sentence in dict.fromkeys(age.sentence for age in ages):
        Console(stderr=True).print(f"Old bars: {sentence}.", highlight=False)


def _state_windows(clm: "Services", requests: list["RetrainRequest"]) -> None:
    """Prints the Sharpe ratio that each window of bars can prove, once for requests of the same window."""
    from clm_core.retraining.window import evidence_window

    windows = (evidence_window(clm, request) for request in requests)
    for sentence in dict.fromkeys(window.sentence for window in windows if window):
        Console(stderr=True).print(sentence, highlight=False)


def show_outcomes(outcomes: list["RetrainResult"]) -> None:
    """Prints a column for each model and a row for each check, with further metrics below."""
    from clm_core.domain.evaluations import ratio_cell

    table = Table(box=SIMPLE_HEAVY)
    table.add_column("out of sample, after costs")
    table.add_column("required", justify="right")
    for outcome in outcomes:
        table.add_column(outcome.version.model_id, justify="right")
    checks_by_name = [{check.name: check for check in outcome.verdict.checks} for outcome in outcomes]
    # rows of the verdict with most checks: without a champion, a verdict has no comparison
    for row in max(checks_by_name, key=len).values():
        checks = [by_name.get(row.name) for by_name in checks_by_name]
        limits = dict.fromkeys(check.required for check in checks if check is not None)
        table.add_row(
            row.label,
            next(iter(limits)) if len(limits) == 1 else "by model",
            *("" if check is None else marked_estimate(check) for check in checks),
        )
    table.add_section()
    metrics = [outcome.metrics for outcome in outcomes]
    baselines = list(zip(*(outcome.verdict.baselines for outcome in outcomes), strict=True))
    table.add_row("drawdown as traded", "", *(f"{percent(-each.max_drawdown)}  " for each in metrics))
    table.add_row("net return", "", *(f"{signed_percent(each.total_return)}  " for each in metrics))
    for same in baselines:
        table.add_row(f"  {same[0].label}", "", *(f"{signed_percent(each.total_return)}  " for each in same))
    table.add_row("net Sharpe ratio", "", *(f"{_sharpe(outcome)}  " for outcome in outcomes))
    for same in baselines:
        cells = (ratio_cell(each.sharpe_ratio, each.sharpe_interval) for each in same)
        table.add_row(f"  {same[0].label}", "", *(f"{cell}  " for cell in cells))
    table.add_row("score, 0 to 100", "", *(f"{outcome.verdict.score:.1f}  " for outcome in outcomes))
    table.add_section()
    table.add_row("verdict", "", *(colored_decision(outcome.verdict) + "  " for outcome in outcomes))
    console.print(table)
    for outcome in outcomes:
        _show_outcome(outcome)


def _sharpe(outcome: "RetrainResult") -> str:
    """Sharpe ratio of the verdict, with the interval."""
    return outcome.verdict.estimate_of("sharpe_ratio") or ratio(outcome.metrics.sharpe_ratio)


def _show_outcome(outcome: "RetrainResult") -> None:
    version = outcome.version
    console.print(
        f"[bold]{version.model_id}[/] {version.version}: {colored_headline(outcome.verdict)}", highlight=False
    )
    from clm_core.domain.versions import regime_sentence
    from clm_core.retraining.pages import spread

    if version.regime is not None:
        console.print(f"  trained towards {regime_sentence(version)}", highlight=False, soft_wrap=True)
    for reason in (*outcome.verdict.sentences, *spread(outcome.verdict)):
        console.print(f"  - {reason}", highlight=False, soft_wrap=True)
    if outcome.verdict.by_symbol:
        console.print(symbols_table(outcome.verdict))
    if outcome.decision is not None:
        console.print(f"  decision: {escape(outcome.decision.sentence)}", highlight=False, soft_wrap=True)
    console.print(f"  load it:  {version.model_path}", highlight=False, soft_wrap=True)
    console.print(f"  report:   {outcome.report.html}", highlight=False, soft_wrap=True)
    console.print()


def outcome_json(outcome: "RetrainResult") -> dict[str, Any]:
    return {
        "version": outcome.version.model_dump(mode="json"),
        "verdict": outcome.verdict.model_dump(mode="json"),
        "report": str(outcome.report.html),
        "decision": None if outcome.decision is None else outcome.decision.model_dump(mode="json"),
    }
