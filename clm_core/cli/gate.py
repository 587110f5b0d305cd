"""`clm gate …`: what the gate asks, why it answered as it did, and what it lets through."""

import math
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.table import Table

from clm_core.cli.naming import VersionName, find_version
from clm_core.cli.output import AsJson, console, listing, print_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from clm_core.decisions.outlook import Outlook

app = typer.Typer(help="The gate: its levels, its reasons and what it lets through.", no_args_is_help=True)
EDGES = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


@app.command()
def policy(
    model_id: Annotated[str, typer.Argument(help="Whose levels, e.g. xgboost_btcusd_1h.")] = "any model",
    symbol: Annotated[str, typer.Option(help="Its market.")] = "any market",
    as_json: AsJson = False,
) -> None:
    """The levels that a version is judged by."""
    from clm_core.decisions.gate_policy import load_document, load_store, with_store
    from clm_core.settings import load_settings

    source = load_settings().policy
    levels = load_document(source.file, source.preset).policy(model_id, symbol)
    if source.store:
        levels = with_store(levels, load_store(source.store))
    if as_json:
        print_json({**levels.model_dump(mode="json"), "hash": levels.digest})
        return
    table = Table("level", "value", box=SIMPLE_HEAVY, title=f"{levels.name}, {levels.digest[:12]}")
    groups = [levels.criteria, *([] if levels.evidence is None else [levels.evidence])]
    for name, value in (pair for group in groups for pair in group.model_dump().items()):
        table.add_row(name, f"{value:g}")
    console.print(table)
    if levels.evidence is None:
        from clm_core.decisions.gate import THRESHOLDS_ALONE

        console.print(f"[yellow]{THRESHOLDS_ALONE}[/]")


@app.command()
def explain(
    version: VersionName,
    out: Annotated[Path | None, typer.Option(help="Where to write the page; default: the reports.")] = None,
    as_json: AsJson = False,
) -> None:
    """A verdict as a page: conditions, luck, trials, and what would change it."""
    from clm_core.decisions.explanation import page, what_would_change_it
    from clm_core.market.timeframes import Timeframe
    from clm_core.retraining.case import proof_of
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as services:
        found = find_version(services, version)
        evaluation, verdict = services.ledger.evaluation(found.model_id, found.version)
        proof = proof_of(services.ledger, found, verdict)
        bar = timedelta(seconds=Timeframe(found.timeframe).seconds)
        changes = what_would_change_it(verdict, proof, bar)
        file = out or services.reports / found.model_id / f"{found.version}-verdict.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        title = f"{found.model_id} {found.version}"
        file.write_text(page(title, verdict, evaluation, proof, bar), encoding="utf-8")
    if as_json:
        told = {"verdict": verdict.model_dump(mode="json"), "would_change_it": changes, "page": str(file)}
        print_json(told)
        return
    console.print(f"[bold]{title}[/]: {verdict.decision.value.upper()} by {verdict.policy}", highlight=False)
    for reason in (*verdict.reasons, *verdict.warnings):
        console.print(f"  - {reason}", highlight=False)
    if changes:
        console.print("What would change it:")
        for change in changes:
            console.print(f"  - {change}", highlight=False)
    console.print(f"Page: {file}", highlight=False, soft_wrap=True)


@app.command()
def compete(
    model_id: Annotated[str, typer.Argument(help="Whose candidates and shadows, e.g. xgboost_btcusd_1h.")],
    size: Annotated[float, typer.Option(min=0.001, max=0.499, help="Chance to call one better.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    as_json: AsJson = False,
) -> None:
    """A model's candidates and shadows against what serves: is the best of them better, luck allowed for?"""
    from dataclasses import asdict

    from clm_core.domain.errors import NotFound
    from clm_core.domain.vocabulary import ModelStatus
    from clm_core.evidence import competition
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as services:
        found = services.ledger.trials.competing(model_id)
    serving = {label: trial for label, status, trial in found if status is ModelStatus.PRODUCTION}
    wanting = {label: trial for label, _, trial in found if label not in serving}
    if not wanting:
        raise NotFound(f"{model_id} has no candidate and no shadow. `clm models` lists what there is.")
    result = competition.compete(wanting, next(iter(serving.values()), None), size, seed)
    if as_json:
        print_json({**asdict(result), "benchmark": next(iter(serving), None)})
        return
    table = listing("version", "Sharpe of a day", "better")
    for label, sharpe in result.sharpes.items():
        table.add_row(label, f"{sharpe:.3f}", "[green]yes[/]" if label in result.superior else "not shown")
    console.print(table)
    benchmark = next(iter(serving), "no position")
    console.print(
        f"Against {benchmark} over {result.days} common days: p = {result.p_value:.3f} that the best is this "
        f"much better by luck; those called better are wrong at most {size:.1%} of the time.",
        highlight=False,
    )


@app.command()
def simulate(
    edge: Annotated[
        list[float] | None, typer.Option(help="True annual Sharpe ratio; may be repeated. Default: 0 to 3.")
    ] = None,
    shape: Annotated[
        str, typer.Option(help="normal, student-t(3), skewed, AR(1) 0.2 or GARCH(1,1).")
    ] = "normal",
    preset: Annotated[
        list[str] | None,
        typer.Option(help="Policy; may be repeated. Default: the one in force and thresholds-only."),
    ] = None,
    streams: Annotated[
        int, typer.Option(min=10, help="Years without an edge, and streams of each edge.")
    ] = 200,
    retrains: Annotated[int, typer.Option(min=1, max=366, help="A year.")] = 52,
    trades: Annotated[float, typer.Option(min=20, help="A year.")] = 203.0,
    kinship: Annotated[float, typer.Option(min=0, max=1, help="Correlation of two retrains.")] = 0.9,
    horizon: Annotated[float, typer.Option(min=0.5, max=10, help="Years to wait for a promotion.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    picture: Annotated[Path | None, typer.Option(help="Draw it into this PNG or SVG.")] = None,
    as_json: AsJson = False,
) -> None:
    """How often luck is promoted and how long an edge waits: the gate itself, on streams of a known edge."""
    from rich.progress import Progress

    from clm_core.decisions.gate_policy import load_document
    from clm_core.decisions.outlook import draw, outlook
    from clm_core.decisions.return_streams import Shape
    from clm_core.decisions.simulation import World
    from clm_core.settings import load_settings

    if shape not in list(Shape):
        raise typer.BadParameter(f"{shape!r} is none of {', '.join(Shape)}", param_hint="--shape")

    source = load_settings().policy
    named = load_document(source.file, source.preset)
    policies = [
        load_document(source.file, name).policy("any model", "any market")
        for name in dict.fromkeys(preset or [named.preset, "thresholds-only"])
    ]
    world = World(shape=Shape(shape), trades_per_year=trades, retrains_per_year=retrains, kinship=kinship)
    edges = EDGES if edge is None else edge
    outlooks = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for levels in policies:
            shown = progress.add_task(levels.name, total=1.0)
            advance = partial(_advance, progress, shown)
            outlooks.append(outlook(world, levels, edges, streams, horizon, seed, advance))
    if picture is not None:
        draw(outlooks, picture)
    if as_json:
        print_json([found.to_json() for found in outlooks])
        return
    _show_outlooks(outlooks)
    if picture is not None:
        console.print(f"Picture: {picture}", highlight=False)


def _advance(progress: "Progress", task: "TaskID", done: float) -> None:
    progress.update(task, completed=done)


def _show_outlooks(outlooks: "list[Outlook]") -> None:
    first = outlooks[0]
    world = first.world
    console.print(
        f"{first.streams} streams each, {world.shape} returns, {world.trades_per_year:.0f} trades and "
        f"{world.retrains_per_year} retrains a year, correlation {world.kinship:g}",
        highlight=False,
    )
    table = Table("true Sharpe", box=SIMPLE_HEAVY)
    for found in outlooks:
        table.add_column(found.policy, justify="right")
    lucky = [found.luck for found in outlooks if found.luck is not None]
    if lucky:
        table.add_row("0: years that promote luck", *(str(luck.promoted) for luck in lucky))
        table.add_row("0: promotions a year", *(f"{luck.promotions:.2f}" for luck in lucky))
    for edge in first.edges:
        waits = [found.edges[edge] for found in outlooks]
        within = f"promoted within {first.horizon_years:g} years"
        table.add_row(f"{edge:g}: {within}", *(str(wait.promoted) for wait in waits))
        table.add_row(f"{edge:g}: median wait, years", *(_years(wait.median_years) for wait in waits))
        table.add_row(
            f"{edge:g}: minimum track record, years", *(_years(wait.minimum_years) for wait in waits)
        )
    console.print(table)


def _years(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "more"
