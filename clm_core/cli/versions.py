"""`clm show`, `clm reproduce`, `clm report`: a version, with lineage, verdict and tear sheet."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.exit_codes import ExitCode
from clm_core.cli.naming import VersionName, find_version
from clm_core.cli.output import AsJson, console, print_json
from clm_core.cli.page_options import OpensPage, hand_over
from clm_core.cli.running import services_to_look
from clm_core.cli.verdicts import colored_headline, verdict_tables
from clm_core.domain import measures
from clm_core.domain.errors import DataError, NotFound, RegistryUnavailable
from clm_core.domain.vocabulary import MarketRegime, ModelType

if TYPE_CHECKING:
    from clm_core.domain.evaluations import EvaluationResult, Verdict
    from clm_core.domain.paper import LearningValue
    from clm_core.domain.promotions import Promotion
    from clm_core.domain.versions import Lineage, ModelVersion
    from clm_core.retraining.reproduce import Reproduction
    from clm_core.services import Services

app = typer.Typer(rich_markup_mode=None)


@app.command()
def show(version: VersionName, as_json: AsJson = False) -> None:
    """Show a version: training data, lineage, changes of production, newest shadow decision, what continuous
    learning is worth for the model, out-of-sample metrics and verdict."""

    with services_to_look() as services:
        stored = find_version(services, version)
        judged = _judged(services, stored)
        lineage = services.ledger.lineage(stored.model_id, stored.version)
        bars_needed = _bars_needed(services, stored)
        in_mlflow = _in_mlflow(services, stored)
        decided = services.ledger.shadow_decisions.newest(stored.model_id, stored.version)
        learned = _learned(services, stored)
        changes = _production_changes(services, stored)
    if as_json:
        evaluation, verdict = judged or (None, None)
        print_json(
            {
                "version": stored.model_dump(mode="json"),
                "evaluation": evaluation.model_dump(mode="json") if evaluation else None,
                "verdict": verdict.model_dump(mode="json") if verdict else None,
                "lineage": lineage.model_dump(mode="json"),
                "bars_needed": bars_needed,
                "shadow_decision": None if decided is None else decided.model_dump(mode="json"),
                "production_changes": [each.model_dump(mode="json") for each in changes],
                "continuous_learning": None if learned is None else learned.model_dump(mode="json"),
            }
        )
        return
    console.print(_facts_table(stored, lineage, bars_needed, in_mlflow))
    for change in changes:
        console.print(_change_sentence(change), highlight=False, soft_wrap=True, markup=False)
    if decided is not None:
        sentence = f"shadow, {decided.at:%Y-%m-%d %H:%M} UTC: {decided.decision.sentence}"
        console.print(sentence, highlight=False, soft_wrap=True, markup=False)
        tests = decided.decision.figures.single_look
        if tests is not None:
            console.print(tests.sentence, highlight=False, soft_wrap=True, markup=False)
    if learned is not None:
        console.print(
            f"{learned.model_id}: {learned.sentence}", highlight=False, soft_wrap=True, markup=False
        )
    if judged is None:
        console.print("Not judged yet.")
        return
    evaluation, verdict = judged
    console.print(
        f"{colored_headline(verdict)}, score {verdict.score:.1f} of 100, out of sample "
        f"{evaluation.period_start:%Y-%m-%d} to {evaluation.period_end:%Y-%m-%d}, after "
        f"{evaluation.costs_in_words}"
    )
    if evaluation.terms_digest is not None:
        console.print(f"terms of trading {evaluation.terms_digest[:12]}", highlight=False)
    for table in verdict_tables(verdict):
        console.print(table)
    for reason in verdict.sentences:
        console.print(f"  - {reason}", highlight=False, soft_wrap=True)


@app.command()
def reproduce(version: VersionName, as_json: AsJson = False) -> None:
    """Train a version again from its recorded inputs and compare; exits with 1 if positions differ."""
    from clm_core.retraining.reproduce import reproduce as train_again

    with services_to_look() as services:
        reproduction = train_again(services, find_version(services, version))
    if as_json:
        print_json(reproduction.to_json())
    else:
        _show_reproduction(reproduction)
    if not reproduction.reproduced:
        sys.exit(ExitCode.FAILED)


@app.command()
def report(
    version: VersionName,
    out: Annotated[
        Path | None, typer.Option(help="Write the page to this file, with all it needs, to hand on.")
    ] = None,
    open_page: OpensPage = False,
    as_json: AsJson = False,
) -> None:
    """Print the path of a version's tear sheet."""
    from clm_core.backtest import chart_library
    from clm_core.lifecycle.version_files import version_file

    with services_to_look() as services:
        path = version_file(services, find_version(services, version))
        if out is not None:
            out.write_bytes(chart_library.complete(path.read_bytes(), services.reports))
            path = out
    hand_over(path, open_page, as_json)


def _judged(services: "Services", version: "ModelVersion") -> "tuple[EvaluationResult, Verdict] | None":
    try:
        return services.ledger.evaluation(version.model_id, version.version)
    except NotFound:
        return None


def _production_changes(services: "Services", version: "ModelVersion") -> "list[Promotion]":
    """Committed changes that put the version in production or took it out, oldest first."""
    changes = services.ledger.promotions.committed(version.model_id)
    return [each for each in changes if version.version in (each.from_version, each.to_version)]


def _change_sentence(change: "Promotion") -> str:
    from clm_core.domain.overviews import TIMELINE_KIND_OF

    before, after = (label or "nothing" for label in (change.from_version, change.to_version))
    return (
        f"{TIMELINE_KIND_OF[change.kind]}, {change.at:%Y-%m-%d %H:%M} UTC: {after} in production after "
        f"{before}, by {change.actor}: {change.reason}"
    )


def _learned(services: "Services", version: "ModelVersion") -> "LearningValue | None":
    """Production minus the frozen champion of the version's model; None for a model never in production, or
    without stored bars."""
    if not services.ledger.promotions.committed(version.model_id):
        return None
    from clm_core.lifecycle.learning import learning_value

    try:
        return learning_value(services, version.model_id)
    except DataError as error:
        typer.echo(f"The worth of continuous learning cannot be measured: {error}", err=True)
        return None


def _bars_needed(services: "Services", version: "ModelVersion") -> int | None:
    """Number of closed bars for a prediction; None for a version of release 0.1.0 or without MLflow."""
    try:
        return services.registry.tagged_bars_needed(version.model_id, version.mlflow_version)
    except RegistryUnavailable:
        return None


def _in_mlflow(services: "Services", version: "ModelVersion") -> str:
    """Number of the version in MLflow, or the command that brings a deleted version back."""
    number = version.mlflow_version
    removed = services.ledger.removed_files.of(version.model_id, version.version)
    if removed is not None:
        return f"version {number}; {removed.sentence}"
    try:
        if services.registry.holds(version.model_id, number, version.mlflow_run_id):
            return f"version {number}"
    except RegistryUnavailable:
        return "MLflow does not answer"
    return f"DELETED; clm restore-version {version.model_id} {version.version} brings it back"


def _facts_table(
    version: "ModelVersion", lineage: "Lineage", bars_needed: int | None, in_mlflow: str
) -> Table:
    from clm_core.domain.displayed_params import readable
    from clm_core.domain.versions import regime_sentence

    table = Table(
        show_header=False,
        box=SIMPLE_HEAVY,
        title=f"{version.model_id} {version.version}",
        title_justify="left",
    )
    for name, value in (
        ("status", version.status.value),
        ("load it with", version.model_path),
        ("in MLflow", in_mlflow),
        ("bars to predict from", "not recorded" if bars_needed is None else f"at least {bars_needed:,}"),
        ("registered", f"{version.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("served before it", version.parent_version or "none"),
        ("training job", f"{lineage.job.id}, {lineage.job.trigger_reason}, by {lineage.job.requested_by}"),
        ("recipe from", lineage.job.recipe_from or "the request"),
        *([("trained towards", regime_sentence(version))] if version.regime else []),
        *([("candidate", str(lineage.job.candidate_id))] if lineage.job.candidate_id else []),
        ("trained on", f"{version.symbol} {version.timeframe}, hash {version.data_hash}"),
        ("of the series", f"hash {lineage.data_snapshot}"),
        *((f"own series {name}", f"hash {each}") for name, each in lineage.job.series.items()),
        *(
            (f"series {symbol}", f"hash {snapshot}")
            for symbol, snapshot in zip(lineage.job.symbols, lineage.job.data_snapshots, strict=True)
        ),
        ("recipe", version.recipe_digest or "not recorded"),
        ("seed", str(version.seed)),
        ("parameters", _pairs(readable(version.model_type, version.params))),
        *(("member", member) for member in _members(version)),
        ("skill against a constant", _skill(version)),
        ("validation metrics", _validation(version)),
        ("code", version.code_version),
        ("libraries", _pairs(version.environment)),
        ("bundle digest", version.bundle_digest),
    ):
        table.add_row(name, value)
    return table


def _members(version: "ModelVersion") -> list[str]:
    """Members of an ensemble with weights, and the requested name where different."""
    if version.model_type is not ModelType.ENSEMBLE:
        return []
    from clm_core.models import catalog
    from clm_core.models.ensemble import EnsembleParams, Member

    metrics = version.train_metrics
    return [
        f"{each.name}, weight {metrics[f'weight.{each.model_id}.{each.version}']:.3f}"
        + _weights_by_regime(metrics, f"{each.model_id}.{each.version}")
        + (f", requested as {each.asked}" if each.asked != each.name else "")
        for each in EnsembleParams.parse(catalog.own_params(version.params)).members
        if isinstance(each, Member)
    ]


def _weights_by_regime(metrics: Mapping[str, float], member: str) -> str:
    """` (calm 0.500, turbulent 0.000)`; empty for an ensemble with the same weights in every regime."""
    names = [(regime, f"weight_{regime}.{member}") for regime in MarketRegime]
    known = [f"{regime} {metrics[name]:.3f}" for regime, name in names if name in metrics]
    return f" ({', '.join(known)})" if known else ""


def _skill(version: "ModelVersion") -> str:
    """Skill of the registered model with the standard error."""
    from clm_core.evidence.soundness import skill_of

    skill = skill_of(version.train_metrics)
    if skill is None:
        return measures.NOT_MEASURED
    error = f"standard error {measures.fine_percent(skill.error)}" if skill.measured else "error not measured"
    return f"{measures.fine_percent(skill.value)}, {error}"


def _validation(version: "ModelVersion") -> str:
    metrics = version.validation_metrics
    return _pairs({name: measures.significant(each) for name, each in sorted(metrics.items())})


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "not recorded"


def _show_reproduction(reproduction: "Reproduction") -> None:
    if reproduction.differences:
        table = Table("what differs", "then", "now", box=SIMPLE_HEAVY)
        for difference in reproduction.differences:
            table.add_row(difference.what, difference.then, difference.now)
        console.print(table)
    positions = reproduction.positions
    if reproduction.reproduced:
        console.print(f"[green]Reproduced[/]: the same position on all {positions.bars:,} bars.")
    else:
        console.print(
            f"[red]Not reproduced[/]: other positions on {positions.differing:,} of {positions.bars:,} bars, "
            f"first at {positions.first:%Y-%m-%d %H:%M} UTC, by up to {positions.largest:.4g}.",
            highlight=False,
        )
