"""`clm candidates`: propose training parameters, and list the candidates."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.output import AsJson, listing, parsed_params, plain, print_json, print_report, print_table
from clm_core.cli.running import services_to_look, services_with_status
from clm_core.cli.search_options import KindName, Plugin, Timeframe, TrainingParams, validated
from clm_core.cli.settings_in_force import settings_for_change
from clm_core.domain.vocabulary import CandidateOrder, CandidateOrigin

if TYPE_CHECKING:
    from clm_core.domain.candidates import StrategyCandidate

app = typer.Typer(
    help="Candidates: training parameters proposed by people and by evolution.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def add(
    model: Annotated[KindName, typer.Option(help="Kind of model.")],
    symbol: Annotated[str, typer.Option(help="Market, as in `clm data list`.")],
    plugin: Plugin = None,
    timeframe: Timeframe = "1h",
    param: TrainingParams = None,
    base: Annotated[
        str | None,
        typer.Option(help="Strategy of which the candidate is a variant.", show_default="the model id"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Propose a candidate, evaluated by the next pass. The same proposal again gives the same candidate."""
    from clm_core.domain.candidates import CandidateRequest
    from clm_core.lifecycle.candidates import result
    from clm_core.search.posted import post_candidate
    from clm_core.services import open_services

    fields = {
        "model_type": model,
        "plugin": plugin,
        "symbol": symbol,
        "timeframe": timeframe,
        "params": parsed_params(param or []),
        "base_strategy": base,
    }
    request = validated(CandidateRequest, fields)
    with open_services(settings_for_change()) as services:
        candidate = post_candidate(services, request)
    if as_json:
        typer.echo(candidate.model_dump_json(indent=2))
        return
    typer.echo(candidate.id)
    typer.echo(f"Candidate of {candidate.base_strategy}: {result(candidate)}.", err=True)


@app.command()
def evaluate(
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates evaluated in parallel.", show_default="one per processor"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the oldest waiting candidates, and count the trials; `clm up` does so every hour."""
    with services_with_status() as services:
        from clm_core.lifecycle import candidates

        report = candidates.run(services, workers)
    print_report(report, as_json)


@app.command(name="list")
def list_(
    base: Annotated[str | None, typer.Option(help="Only variants of this strategy or model id.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this market.")] = None,
    origin: Annotated[CandidateOrigin | None, typer.Option(help="Only this origin.")] = None,
    waiting: Annotated[
        bool | None, typer.Option("--waiting/--evaluated", help="Only those that wait, or evaluated ones.")
    ] = None,
    order: Annotated[CandidateOrder, typer.Option(help="Newest or best first.")] = CandidateOrder.CREATED_AT,
    limit: Annotated[int, typer.Option(help="Number of candidates.", min=1, max=1000)] = 20,
    after: Annotated[str | None, typer.Option(help="Cursor of the preceding page, `next`.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the candidates with fitness and parameters."""
    from clm_core.domain.listings import CandidateQuery
    from clm_core.lifecycle.candidates import result

    query = CandidateQuery(
        base_strategy=base,
        symbol=symbol,
        origin=origin,
        awaits_evaluation=waiting,
        order=order,
        limit=limit,
        after=after,
    )
    with services_to_look() as services:
        page = services.ledger.candidates.find(query)
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
        return
    table = listing("candidate", "variant of", "origin", "created (UTC)", "Sharpe ratio")
    table.add_column("parameters", overflow="fold")
    for each in page.items:
        table.add_row(
            str(each.id),
            each.base_strategy,
            each.origin.value,
            f"{each.created_at:%Y-%m-%d %H:%M}",
            result(each),
            ", ".join(f"{name} {value}" for name, value in own_params(each).items()) or "defaults",
        )
    print_table(table, "No such candidate: `clm candidates add` proposes one, `clm evolve` breeds them.")
    if page.next:
        plain.print(f"The next page: --after {page.next}", soft_wrap=True)


@app.command()
def variants(
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Only this model id.")] = None,
    limit: Annotated[int, typer.Option(help="Number of versions, newest first.", min=1, max=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List the weak production versions with proposed variants, and the answers."""

    with services_to_look() as services:
        proposed = services.ledger.variants.newest(model, limit)
    if as_json:
        print_json([each.model_dump(mode="json") for each in proposed])
        return
    for each in proposed:
        plain.print(f"{each.model_id}@{each.version}, {each.opened_at:%Y-%m-%d %H:%M} UTC", soft_wrap=True)
        plain.print(f"    {each.because}", soft_wrap=True)
        plain.print(f"    {each.outcome or 'no answer yet: candidates wait'}", soft_wrap=True)
    if not proposed:
        plain.print("No variants yet: `clm watch` proposes them for a weak production version.")


def own_params(candidate: "StrategyCandidate") -> dict[str, object]:
    """Parameters without sizing and execution, mostly the same for all candidates."""
    return {name: value for name, value in candidate.params.items() if name not in ("sizing", "execution")}
