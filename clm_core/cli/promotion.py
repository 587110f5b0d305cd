"""Commands on the production version: promote, rollback, halt, hard-stop, confirm, retire, reconcile."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.output import AsJson, print_json
from clm_core.cli.settings_in_force import (
    settings_for_change,
    settings_for_promotion,
    settings_for_repair,
)

if TYPE_CHECKING:
    from clm_core.domain.actors import Actor
    from clm_core.domain.promotions import Expected, Promotion
    from clm_core.services import Services

app = typer.Typer(rich_markup_mode=None)

NOTHING = "nothing"
Named = Annotated[
    str, typer.Argument(metavar="MODEL@VERSION", help="Model id, @ and version label, as in `clm models`.")
]
Reason = Annotated[str, typer.Option(help="Reason for the audit log.")]
Expect = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help=f"Required current production version; '{NOTHING}' requires none."),
]
Force = Annotated[bool, typer.Option("--force", help="Overrule the gate for 7 days; needs --reason.")]


@app.command(name="promote")
def promote_version(
    version: Named, reason: Reason = "", expect: Expect = None, force: Force = False, as_json: AsJson = False
) -> None:
    """Promote a version to production: models:/MODEL@production. Its evidence is judged anew."""
    from clm_core.retraining.promoting import promote
    from clm_core.services import open_services

    model_id, label = parts_of(version)
    with open_services(settings_for_promotion()) as services:
        change = promote(
            services, model_id, label, this_user(), reason, expected_champion=_expected(expect), force=force
        )
        _end_answered_forms(services, model_id)
    _print([change], as_json)


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model id.")],
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Version to go back to; by default the one before.")
    ] = None,
    reason: Reason = "",
    expect: Expect = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Roll back to the production version before."""
    from clm_core.services import open_services

    with open_services(settings_for_repair()) as services:
        change = services.promotions.rollback(
            model, this_user(), reason, services.clock(), to, _expected(expect), force
        )
        _end_answered_forms(services, model)
    _print([change], as_json)


@app.command()
def halt(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model id.")],
    reason: Annotated[str, typer.Option(help="Reason for the audit log and for the people it pages.")],
    expect: Expect = None,
    as_json: AsJson = False,
) -> None:
    """Take the production version out of production: nothing serves, and traders hold no position."""
    from clm_core.services import open_services

    with open_services(settings_for_repair()) as services:
        change = services.promotions.halt(model, this_user(), reason, services.clock(), _expected(expect))
        _end_answered_forms(services, model)
    _print([change], as_json)


@app.command(name="hard-stop")
def switch_hard_stop(
    version: Named,
    off_for: Annotated[
        float, typer.Option(metavar="DAYS", min=0, max=90, help="Days without a hard stop; 0 ends them.")
    ],
    reason: Annotated[str, typer.Option(help="Reason for the audit log.")],
    as_json: AsJson = False,
) -> None:
    """Switch the hard stop of a version off for some days."""
    from datetime import timedelta

    from clm_core.services import open_services

    model_id, label = parts_of(version)
    if not reason.strip():
        raise typer.BadParameter("a version without a hard stop needs a reason for the audit: --reason")
    with open_services(settings_for_change()) as services:
        now = services.clock()
        until = now + timedelta(days=off_for)
        services.ledger.exemptions.record(
            services.ledger.version(model_id, label), until, this_user(), reason, now
        )
    if as_json:
        off_until = until.isoformat() if off_for else None
        print_json({"model_id": model_id, "version": label, "off_until": off_until})
        return
    state = f"off until {until:%Y-%m-%d %H:%M} UTC" if off_for else "on"
    typer.echo(f"The hard stop of {model_id} {label} is {state}.")


@app.command()
def confirm(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model id.")],
    reason: Annotated[str, typer.Option(help="Reason for the audit log.")],
    days: Annotated[int, typer.Option(min=1, max=90, help="Days from now.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Extend a forced promotion."""
    from clm_core.services import open_services

    with open_services(settings_for_repair()) as services:
        change = services.promotions.confirm(model, days, this_user(), reason, services.clock())
    _print([change], as_json)


@app.command()
def retire(version: Named, reason: Reason = "", as_json: AsJson = False) -> None:
    """Retire a version that is not in production."""
    from clm_core.services import open_services

    model_id, label = parts_of(version)
    with open_services(settings_for_change()) as services:
        retired = services.promotions.retire(model_id, label, this_user(), reason, services.clock())
        _end_answered_forms(services, model_id)
    if as_json:
        print_json(retired.model_dump(mode="json"))
    else:
        typer.echo(f"{model_id} {label} is retired.")


@app.command()
def reconcile(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Only this model; by default all models.")
    ] = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Accept an alias moved by hand; needs MODEL and --reason.")
    ] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Complete changes interrupted by a crash, and move back an alias moved by hand."""
    from clm_core.services import open_services

    if adopt and model is None:
        raise typer.BadParameter("name the model whose alias is accepted: clm reconcile MODEL --adopt")
    with open_services(settings_for_repair()) as services:
        changes = [
            change
            for model_id in ([model] if model else services.ledger.promotions.models())
            for change in services.promotions.reconcile(
                model_id, this_user(), services.clock(), adopt, reason
            )
        ]
    _print(changes, as_json)


def parts_of(version: str) -> tuple[str, str]:
    model_id, separator, label = version.rpartition("@")
    if not (model_id and separator and label):
        raise typer.BadParameter(f"{version!r} is not MODEL@VERSION, see `clm models`")
    return model_id, label


def this_user() -> "Actor":
    """Actor of the command line: a user with access to the database and the home folder is an admin."""
    import getpass

    from clm_core.domain.actors import Actor
    from clm_core.domain.vocabulary import Role

    return Actor(name=getpass.getuser(), role=Role.ADMIN)


def _end_answered_forms(services: "Services", model_id: str) -> None:
    """End the runs in Prefect that still ask about the model; a problem leaves them to the next pass."""
    from clm_core.lifecycle.answered_forms import end_answered_forms

    for problem in end_answered_forms(services, model_id):
        typer.echo(
            f"The waiting run `approve` in Prefect ends with the next shadow pass: {problem}", err=True
        )


def _expected(label: str | None) -> "Expected":
    from clm_core.domain.promotions import UNSET

    if label is None:
        return UNSET
    return None if label == NOTHING else label


def _print(changes: "Sequence[Promotion]", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([change.model_dump(mode="json") for change in changes], indent=2))
        return
    for change in changes:
        typer.echo(_sentence(change))
    if not changes:
        typer.echo("The production versions match the ledger: nothing to do.")


def _sentence(change: "Promotion") -> str:
    from clm_core.domain.promotions import PromotionKind, PromotionState

    model_id = change.model_id
    before = change.from_version or "nothing"
    after = change.to_version
    if change.state is PromotionState.ABORTED:
        return (
            f"{model_id}: the {change.kind} to {after} was interrupted and undone, {before} is in production."
        )
    if change.kind is PromotionKind.ALIAS_MOVED:
        return f"{model_id}: {change.reason}; the alias is moved back, {before} is in production."
    if change.kind is PromotionKind.HALT:
        return (
            f"{model_id}: halted, NOTHING IS IN PRODUCTION, before {before}. "
            f"Put a version back with: clm rollback {model_id} --to {before}"
        )
    if change.kind is PromotionKind.LOSS:
        return (
            f"{model_id}: {before} was deleted in MLflow and NOTHING IS IN PRODUCTION. "
            f"Put it back with: clm restore-version {model_id} {before}"
        )
    until = f" Forced until {change.expires_at:%Y-%m-%d %H:%M} UTC." if change.expires_at else ""
    return f"{model_id}: {after} is in production ({change.kind}), before {before}.{until}"
