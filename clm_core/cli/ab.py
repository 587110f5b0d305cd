"""`clm ab`: allocations (A/B): candidates share the capital of a model with the production version."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clm_core.cli.output import AsJson, listing, plain, print_table
from clm_core.cli.promotion import Named, parts_of, this_user
from clm_core.cli.running import services_to_look
from clm_core.cli.settings_in_force import settings_for_change

if TYPE_CHECKING:
    from clm_core.domain.allocations import AllocationInForce, AllocationRun
    from clm_core.services import Services

app = typer.Typer(
    help="Allocations (A/B): candidates share the capital of a model with the production version.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def start(
    candidate: Named,
    also: Annotated[
        list[str] | None, typer.Option(metavar="VERSION", help="Another candidate of the model; repeatable.")
    ] = None,
    observed: Annotated[
        Literal["paper", "fills"] | None,
        typer.Option(
            help="Known returns: of every arm (paper) or of the traded arm (fills); default: the policy's.",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Reason for the audit log.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Accept versions that await a decision without having passed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start an allocation: 70 % production and 30 % candidates, then by the returns."""
    from clm_core.lifecycle import allocation
    from clm_core.services import open_services

    model_id, label = parts_of(candidate)
    labels = [label, *(_of_model(each, model_id) for each in also or [])]
    with open_services(settings_for_change()) as services:
        run = allocation.start(
            services,
            model_id,
            labels,
            this_user(),
            reason,
            observed,
            force,
        )
        _show(services, [run.model_id], as_json)


@app.command()
def status(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Model id; by default every running allocation.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the weights in force, with reasons, and the allocations that ended."""

    with services_to_look() as services:
        running = [run.model_id for run in services.ledger.allocations.all_running()]
        _show(services, running if model is None else [model], as_json)


@app.command()
def stop(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model id.")],
    reason: Annotated[str, typer.Option(help="Reason for the audit log.")],
    as_json: AsJson = False,
) -> None:
    """End the running allocation: the production version has the whole capital."""
    from clm_core.lifecycle import allocation
    from clm_core.services import open_services

    if not reason.strip():
        raise typer.BadParameter(
            "the end of an allocation needs a reason for the audit", param_hint="--reason"
        )
    with open_services(settings_for_change()) as services:
        run = allocation.stop(services, model, this_user(), reason)
    typer.echo(run.model_dump_json(indent=2) if as_json else _ended(run))


def _of_model(named: str, model_id: str) -> str:
    """Label of a version of the model, given with or without the model id."""
    if "@" not in named:
        return named
    other, label = parts_of(named)
    if other != model_id:
        raise typer.BadParameter(
            f"{named} is a version of another model than {model_id}: an allocation is of one model",
            param_hint="--also",
        )
    return label


def _show(services: "Services", models: list[str], as_json: bool) -> None:
    from clm_core.registry.allocation_in_force import allocation_in_force

    shown = [allocation_in_force(services.ledger, model_id) for model_id in models]
    ended = {model_id: _of_the_past(services, model_id) for model_id in models}
    if as_json:
        typer.echo(json.dumps([_json(each, ended[each.model_id]) for each in shown], indent=2))
        return
    table = listing("model", "state", "version", "weight", "since", "")
    for each in shown:
        if not each.arms:
            table.add_row(each.model_id, str(each.state), "-", f"{0:.1f} %", _since(each), "nothing serves")
        for number, arm in enumerate(each.arms):
            first = number == 0
            role = arm.out or ("production" if first else "candidate")
            head = (each.model_id, str(each.state)) if first else ("", "")
            table.add_row(
                *head, arm.version, f"{100 * arm.weight:.1f} %", _since(each) if first else "", role
            )
    print_table(table, "No allocation is running: `clm ab start MODEL@CANDIDATE` starts one.")
    for each in shown:
        for line in (*each.reasons, *(_ended(run) for run in ended[each.model_id])):
            plain.print(line, soft_wrap=True)


def _since(shown: "AllocationInForce") -> str:
    return "" if shown.since is None else f"{shown.since:%Y-%m-%d %H:%M}"


def _of_the_past(services: "Services", model_id: str) -> "list[AllocationRun]":
    return [run for run in services.ledger.allocations.history(model_id, limit=20) if run.end is not None]


def _json(shown: "AllocationInForce", ended: "list[AllocationRun]") -> dict[str, Any]:
    return {**shown.model_dump(mode="json"), "ended": [run.model_dump(mode="json") for run in ended]}


def _ended(run: "AllocationRun") -> str:
    arms = " and ".join(run.arms)
    return (
        f"{run.model_id}: the allocation of {arms} ended at {run.ended_at:%Y-%m-%d %H:%M} UTC by "
        f"{run.ended_by}, {run.end}: {run.end_reason}"
    )
