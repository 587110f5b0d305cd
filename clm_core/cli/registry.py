"""`clm models`, `clm jobs`, `clm stats`: lists of versions and training jobs, and counts."""

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.markup import escape

from clm_core.cli.output import AsJson, console, listing, print_json, print_table, user
from clm_core.cli.renamed import keep_old_name
from clm_core.cli.running import services_to_look
from clm_core.cli.settings_in_force import (
    require_home,
    settings_for_change,
    settings_for_look,
    settings_for_repair,
)
from clm_core.domain.measures import count, significant
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType, Role, VersionOrder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clm_core.domain.jobs import TrainingJob
    from clm_core.domain.listings import ListedVersion, Page
    from clm_core.ledger.counts import Counts
    from clm_core.models.offer import Offer

app = typer.Typer(rich_markup_mode=None)
models_app = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
app.add_typer(models_app, name="models")
jobs_app = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
app.add_typer(jobs_app, name="jobs")

MOMENTS = ["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"]
ModelId = Annotated[str | None, typer.Option(help="Only this model: xgboost_btcusd_1h.")]
Since = Annotated[datetime | None, typer.Option(formats=MOMENTS, help="Created then (UTC) or later.")]
Until = Annotated[datetime | None, typer.Option(formats=MOMENTS, help="Created before (UTC).")]
Ascending = Annotated[bool, typer.Option("--ascending", help="Lowest, or oldest, first.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of rows.")]
After = Annotated[
    str | None,
    typer.Option(metavar="CURSOR", help="Next page: the cursor printed by the same command."),
]


@models_app.callback()
def models(
    context: typer.Context,
    model_id: ModelId = None,
    model_type: Annotated[ModelType | None, typer.Option(help="Only models of this type.")] = None,
    plugin: Annotated[str | None, typer.Option(help="Only models of this plug-in.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only models of this market.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Only models with bars of this length.")] = None,
    status: Annotated[ModelStatus | None, typer.Option(help="Only versions with this status.")] = None,
    min_sharpe: Annotated[
        float | None, typer.Option(help="Only versions whose newest evaluation reaches this Sharpe ratio.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help='Only versions with this validation metric: "brier_skill_low>0"; may be repeated.',
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    order: Annotated[VersionOrder, typer.Option(help="Sort key.")] = VersionOrder.CREATED_AT,
    ascending: Ascending = False,
    limit: Limit = 20,
    after: After = None,
    as_json: AsJson = False,
) -> None:
    """List the registered versions with their newest evaluation, newest first."""
    if context.invoked_subcommand is not None:
        return
    from clm_core.domain.listings import VersionQuery

    if min_sharpe is not None and not math.isfinite(min_sharpe):
        raise typer.BadParameter("--min-sharpe takes a finite number, for example 1.5")
    query = VersionQuery(
        model_id=model_id,
        model_type=model_type,
        plugin=plugin,
        symbol=symbol,
        timeframe=timeframe,
        status=status,
        min_sharpe=min_sharpe,
        metric=_conditions(metric or []),
        since=_utc(since),
        until=_utc(until),
        order=order,
        descending=not ascending,
        limit=limit,
        after=after,
    )
    with services_to_look() as services:
        page = services.ledger.find_versions(query)
    if as_json:
        print_json([_version_json(each) for each in page.items])
    else:
        _show_versions(page, filtered=query != VersionQuery(limit=limit), metrics=_named(query.metric))
    _print_next_page(page.next)


@models_app.command()
def list_types(as_json: AsJson = False) -> None:
    """List all kinds of model, with origin, installation of missing libraries, and defaults of the shared
    parameters."""
    from clm_core.models.offer import offers

    kinds = offers(settings_for_look().execution.rules)
    if as_json:
        print_json([_offer_json(offer) for offer in kinds])
    else:
        _show_offers(kinds)
        _show_sections(kinds)


@jobs_app.callback()
def jobs(
    context: typer.Context,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs with this status.")] = None,
    model_id: ModelId = None,
    since: Since = None,
    until: Until = None,
    ascending: Ascending = False,
    limit: Limit = 20,
    after: After = None,
    as_json: AsJson = False,
) -> None:
    """List the training jobs, newest first."""
    if context.invoked_subcommand is not None:
        return
    from clm_core.domain.listings import JobQuery

    query = JobQuery(
        status=status,
        model_id=model_id,
        since=_utc(since),
        until=_utc(until),
        descending=not ascending,
        limit=limit,
        after=after,
    )
    with services_to_look() as services:
        page = services.ledger.find_jobs(query)
    if as_json:
        print_json([job.model_dump(mode="json") for job in page.items])
    else:
        _show_jobs(page, filtered=query != JobQuery(limit=limit))
    _print_next_page(page.next)


@jobs_app.command()
def reap(as_json: AsJson = False) -> None:
    """End the jobs whose process died; every retrain does the same first."""
    from clm_core.retraining import jobs
    from clm_core.services import open_services

    with open_services(settings_for_repair()) as services:
        ended = jobs.reap_dead_jobs(services)
    if as_json:
        print_json([job.model_dump(mode="json") for job in ended])
        return
    for job in ended:
        console.print(f"{job.id} {job.model_id}: {job.status.value}, {job.failure_cause}", highlight=False)
    console.print(f"{len(ended)} jobs had lost their lease.", highlight=False)


keep_old_name(app, "sweep", "jobs reap", reap)

JobId = Annotated[
    UUID, typer.Argument(metavar="JOB", help="Id of the job, as in `clm jobs --status pending`.")
]


@jobs_app.command(name="run")
def run_job(job_id: JobId, as_json: AsJson = False) -> None:
    """Run a pending job here and now, whatever waits for a worker; `clm up` need not run."""
    from clm_core.cli.retrain import outcome_json, run_pending, show_outcomes

    outcomes = run_pending(job_id)
    if as_json:
        print_json([outcome_json(outcome) for outcome in outcomes])
    else:
        show_outcomes(outcomes)


@jobs_app.command()
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a pending job; its status is failed then, without an alert."""
    from clm_core.domain.actors import Actor
    from clm_core.services import open_services

    settings = settings_for_change()
    require_home(settings)
    with open_services(settings) as services:
        from clm_core.triggers import pending

        job = pending.cancel(services, job_id, Actor(name=user(), role=Role.ADMIN))
    if as_json:
        print_json(job.model_dump(mode="json"))
    else:
        console.print(f"Job {job.id} of {job.model_id} was cancelled.", highlight=False)


@app.command()
def stats(as_json: AsJson = False) -> None:
    """Count models, versions and jobs by status, promotions and rollbacks."""
    from dataclasses import asdict

    with services_to_look() as services:
        counts = services.ledger.counts()
    if as_json:
        print_json(asdict(counts))
    else:
        _show_counts(counts)


def _conditions(texts: "Sequence[str]") -> tuple[str, ...]:
    from clm_core.domain.listings import MetricCondition

    try:
        return tuple(text for text in texts if MetricCondition.of(text))
    except ValueError as error:
        raise typer.BadParameter(f"--metric: {error}") from error


def _named(conditions: "Sequence[str]") -> list[str]:
    """Names of the metrics of conditions, each once."""
    from clm_core.domain.listings import MetricCondition

    return list(dict.fromkeys(MetricCondition.of(each).name for each in conditions))


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _print_next_page(cursor: str | None) -> None:
    """Prints the cursor of the next page to stderr, so that JSON on stdout stays parseable."""
    if cursor is not None:
        typer.echo(f"There are more: repeat the command with --after {cursor}", err=True)


def _version_json(each: "ListedVersion") -> dict[str, Any]:
    evaluation = each.evaluation and each.evaluation.model_dump(mode="json")
    return each.version.model_dump(mode="json") | {"evaluation": evaluation}


def _offer_json(offer: "Offer") -> dict[str, Any]:
    from dataclasses import asdict

    shown = asdict(offer)
    sections = shown.pop("sections") or {"sizing": None, "execution": None}
    return shown | {"kind": str(offer.kind), **offer.kind._asdict(), "usable": offer.usable} | sections


def _show_offers(offers: "list[Offer]") -> None:
    table = listing("kind", "--model", "--plugin", "from", "library", "seeds")
    table.add_column("here", overflow="fold")
    for offer in offers:
        table.add_row(
            str(offer.kind),
            str(offer.kind) if offer.is_built_in else offer.kind.model_type.value,
            "" if offer.is_built_in else offer.kind.plugin or "",
            "built in" if offer.is_built_in else f"{offer.distribution} {offer.release or ''}",
            " ".join(filter(None, (offer.library, offer.library_version))) or "-",
            "-" if offer.seeds is None else str(offer.seeds),
            "ready" if offer.usable else escape(offer.command or offer.problem or ""),
        )
    console.print(table)


def _show_sections(offers: "list[Offer]") -> None:
    """Parameters of the sections shared by all kinds, with the kinds of another default."""
    by_kind = {_section_owner(offer): _named_values(offer.sections) for offer in offers if offer.sections}
    names = list(dict.fromkeys(name for values in by_kind.values() for name in values))
    table = listing("parameter of every kind", "default", "default of other kinds")
    for name in names:
        values = [values.get(name, "-") for values in by_kind.values()]
        usual = max(values, key=values.count)
        others = (f"{kind} {value}" for kind, value in zip(by_kind, values, strict=True) if value != usual)
        table.add_row(name, usual, ", ".join(others))
    console.print(table)
    console.print(
        "Set with --param NAME=VALUE (sizing=none: positions are the signals). Parameters of each kind: "
        "docs/reference/models.md.",
        highlight=False,
    )


def _section_owner(offer: "Offer") -> str:
    """Name of the kind in the table of sections, one name for the rule strategies, which have one default."""
    return "strategies" if offer.is_built_in and offer.kind.plugin else str(offer.kind)


def _named_values(sections: "Mapping[str, Any]") -> dict[str, str]:
    """Values by section and name, as in `sizing.target_volatility`; "none" for a whole section by name."""
    named = dict[str, str]()
    for section, values in sections.items():
        items = {section: values} if isinstance(values, str) else values
        for name, value in items.items():
            whole = section if name == section else f"{section}.{name}"
            named[whole] = _formatted_default(value)
    return named


def _formatted_default(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
    return str(value)


def _show_versions(page: "Page[ListedVersion]", filtered: bool, metrics: "Sequence[str]") -> None:
    """
    Args:
        metrics: names of validation metrics with a column.
    """
    columns = ["model", "version", "status", "Sharpe", "trades", "score", *metrics, "registered (UTC)"]
    by_regime = any(each.version.regime for each in page.items)
    table = listing(*columns, *(["towards"] if by_regime else []))
    for each in page.items:
        version = each.version
        table.add_row(
            version.model_id,
            version.version,
            version.status.value,
            *_figures(each),
            *(significant(version.validation_metrics.get(name, math.nan)) for name in metrics),
            f"{version.created_at:%Y-%m-%d %H:%M}",
            *([version.regime or ""] if by_regime else []),
        )
    print_table(
        table, "No such version." if filtered else "No versions yet: `clm demo` or `clm retrain` makes one."
    )


def _figures(listed: "ListedVersion") -> tuple[str, str, str]:
    evaluation = listed.evaluation
    if evaluation is None:
        return "-", "-", "-"
    from clm_core.domain.evaluations import ratio_cell

    return (
        ratio_cell(evaluation.sharpe_ratio, listed.sharpe_interval),
        count(evaluation.trades),
        f"{evaluation.promotion_score:.1f}",
    )


def _show_jobs(page: "Page[TrainingJob]", filtered: bool) -> None:
    table = listing("job", "model", "reason", "status", "requested (UTC)", "seconds", "candidate")
    table.add_column("cause of failure", overflow="fold")
    for job in page.items:
        table.add_row(
            str(job.id),
            job.model_id,
            job.trigger_reason.value,
            job.status.value,
            f"{job.created_at:%Y-%m-%d %H:%M}",
            _took(job),
            "" if job.candidate_id is None else str(job.candidate_id)[:8],
            job.failure_cause or "",
        )
    print_table(table, "No such job." if filtered else "No jobs yet: `clm retrain` starts one.")


def _took(job: "TrainingJob") -> str:
    if job.started_at is None or job.finished_at is None:
        return "-"
    return f"{(job.finished_at - job.started_at).total_seconds():.1f}"


def _show_counts(counts: "Counts") -> None:
    table = listing("count of", "number")
    table.columns[1].justify = "right"
    for name, number in (
        ("models", counts.models),
        *((f"  {kind}", number) for kind, number in counts.types.items()),
        ("versions", sum(counts.versions.values())),
        *((f"  {status}", number) for status, number in counts.versions.items()),
        ("jobs", sum(counts.jobs.values())),
        *((f"  {status}", number) for status, number in counts.jobs.items()),
        ("promotions", counts.promotions),
        ("rollbacks", counts.rollbacks),
        ("forced by an admin", counts.forced),
        ("  extended", counts.confirmations),
    ):
        table.add_row(name, f"{number:,}")
    rate = "-" if counts.promotion_rate is None else f"{counts.promotion_rate:.1%}"
    table.add_row("share of judged versions promoted without force", rate)
    console.print(table)
