"""`clm gate …`: the levels of the gate, explanations of verdicts, competitions and simulations."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.gate_simulations import power, simulate
from clm_core.cli.naming import VersionName, find_version
from clm_core.cli.output import AsJson, console, listing, print_json
from clm_core.cli.running import services_to_look
from clm_core.cli.settings_in_force import settings_for_look
from clm_core.cli.verdicts import colored_headline, verdict_tables

app = typer.Typer(
    help="The promotion gate: levels, explanations of verdicts, competitions and simulations.",
    no_args_is_help=True,
)


@app.command()
def policy(
    model_id: Annotated[str, typer.Argument(help="Model id, e.g. xgboost_btcusd_1h.")] = "any model",
    symbol: Annotated[str, typer.Option(help="Market of the model.")] = "any market",
    as_json: AsJson = False,
) -> None:
    """Levels a version is judged by, and what the shadow pass may do."""
    from clm_core.decisions.gate_policy import ALTERNATIVES, load_document, load_store, with_store

    source = settings_for_look().policy
    document = load_document(source.file, source.preset)
    levels = document.policy(model_id, symbol)
    lifecycle = document.lifecycle(model_id, symbol)
    if source.store:
        levels = with_store(levels, load_store(source.store))
    if as_json:
        shown = {"lifecycle": lifecycle.model_dump(mode="json"), "hash": levels.digest}
        print_json({**levels.model_dump(mode="json"), **shown})
        return
    table = Table("level", "value", box=SIMPLE_HEAVY, title=f"{levels.name}, {levels.digest[:12]}")
    groups = [levels.criteria, *([] if levels.evidence is None else [levels.evidence])]
    for name, value in (pair for group in groups for pair in group.model_dump().items()):
        table.add_row(name, f"{value:g}")
    table.add_row("verdict_days", f"{levels.verdict_days:g}")
    as_they_stand = [name for name in ALTERNATIVES if levels.binds(name)]
    budget = "none" if levels.fleet_budget is None else f"{levels.fleet_budget:g}"
    table.add_row("fleet budget", budget)
    table.add_row("bind as they stand", ", ".join(as_they_stand) or "none")
    for name, value in lifecycle.model_dump(exclude={"allocation"}).items():
        table.add_row(f"lifecycle.{name}", value if isinstance(value, str) else f"{value:g}")
    for name, value in lifecycle.allocation.model_dump().items():
        table.add_row(f"lifecycle.allocation.{name}", value if isinstance(value, str) else f"{value:g}")
    console.print(table)
    if levels.evidence is None:
        from clm_core.decisions.gate import THRESHOLDS_ALONE

        console.print(f"[yellow]{THRESHOLDS_ALONE}[/]")


@app.command()
def explain(
    version: VersionName,
    out: Annotated[Path | None, typer.Option(help="Path of the page; default: the reports.")] = None,
    as_json: AsJson = False,
) -> None:
    """Explain a verdict on a page: checks, trial luck, and changes that would let the version pass."""
    from clm_core.decisions.explanation import page
    from clm_core.lifecycle.ways_to_pass import ways_to_pass

    with services_to_look() as services:
        stored = find_version(services, version)
        evaluation, verdict = services.ledger.evaluation(stored.model_id, stored.version)
        proof, bar, changes = ways_to_pass(services.ledger, stored, verdict)
        file = out or services.reports / stored.model_id / f"{stored.version}-verdict.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        title = f"{stored.model_id} {stored.version}"
        file.write_text(page(title, verdict, evaluation, proof, bar), encoding="utf-8")
    if as_json:
        print_json(
            {"verdict": verdict.model_dump(mode="json"), "would_change_it": changes, "page": str(file)}
        )
        return
    console.print(
        f"[bold]{title}[/]: {colored_headline(verdict)}, by the policy {verdict.policy}", highlight=False
    )
    for reason in verdict.sentences:
        console.print(f"  - {reason}", highlight=False, soft_wrap=True)
    for table in verdict_tables(verdict):
        console.print(table)
    if changes:
        console.print("Changes that would let the version pass:")
        for change in changes:
            console.print(f"  - {change}", highlight=False)
    console.print(f"Page: {file}", highlight=False, soft_wrap=True)


@app.command()
def compete(
    model_id: Annotated[str, typer.Argument(help="Model id, e.g. xgboost_btcusd_1h.")],
    size: Annotated[
        float, typer.Option(min=0.001, max=0.499, help="Probability of wrongly calling any version better.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare a model's candidates and shadows with the production version, with multiple-testing control."""
    from dataclasses import asdict

    from clm_core.domain.errors import NotFound
    from clm_core.domain.vocabulary import ModelStatus
    from clm_core.evidence import competition

    with services_to_look() as services:
        trials = services.ledger.trials.competing(model_id)
    production = {label: trial for label, status, trial in trials if status is ModelStatus.PRODUCTION}
    candidates = {label: trial for label, _, trial in trials if label not in production}
    if not candidates:
        raise NotFound(f"{model_id} has no candidate and no shadow. `clm models` lists the versions.")
    result = competition.compete(candidates, next(iter(production.values()), None), size, seed)
    if as_json:
        print_json({**asdict(result), "benchmark": next(iter(production), None)})
        return
    table = listing("version", "Sharpe of a day", "better")
    for label, sharpe in result.sharpes.items():
        table.add_row(label, f"{sharpe:.3f}", "[green]yes[/]" if label in result.superior else "not shown")
    console.print(table)
    benchmark = next(iter(production), "no position")
    console.print(
        f"Against {benchmark} over {result.days} common days: p = {result.p_value:.3f} that the best version "
        f"is this much better by luck; any version is wrongly called better at most {size:.1%} of the time.",
        highlight=False,
    )


app.command()(simulate)
app.command()(power)
