"""`clm promote`, `clm rollback`, `clm retire`, `clm reconcile`: what serves, and how that changes."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.output import AsJson

if TYPE_CHECKING:
    from clm_core.domain.actors import Actor
    from clm_core.domain.promotions import Expected, Promotion

app = typer.Typer(rich_markup_mode=None)

NOTHING = "nothing"
Named = Annotated[
    str, typer.Argument(metavar="MODEL@VERSION", help="As `clm models` lists them: model id, @, version.")
]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Expect = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help=f"Only if this version serves now; '{NOTHING}': if none does."),
]
Force = Annotated[bool, typer.Option("--force", help="Overrule the gate for 7 days; needs --reason.")]


@app.command()
def promote(
    version: Named, reason: Reason = "", expect: Expect = None, force: Force = False, as_json: AsJson = False
) -> None:
    """Let a version serve that passed its gate: models:/MODEL@production."""
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    model_id, label = _parts(version)
    with open_services(load_settings()) as services:
        done = services.promotions.promote(
            model_id, label, this_user(), reason, services.clock(), _expected(expect), force
        )
    _print([done], as_json)


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model id.")],
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="An earlier one than the one before.")
    ] = None,
    reason: Reason = "",
    expect: Expect = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Let the version serve again that served before."""
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as services:
        done = services.promotions.rollback(
            model, this_user(), reason, services.clock(), to, _expected(expect), force
        )
    _print([done], as_json)


@app.command()
def confirm(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model id.")],
    reason: Annotated[str, typer.Option(help="Why it may stand; kept for ever.")],
    days: Annotated[int, typer.Option(min=1, max=90, help="For how long from now.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Let a forced promotion stand for longer."""
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as services:
        done = services.promotions.confirm(model, days, this_user(), reason, services.clock())
    _print([done], as_json)


@app.command()
def retire(version: Named, reason: Reason = "") -> None:
    """Take a version out of the running that does not serve."""
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    model_id, label = _parts(version)
    with open_services(load_settings()) as services:
        services.promotions.retire(model_id, label, this_user(), reason, services.clock())
    typer.echo(f"{model_id} {label} is retired.")


@app.command()
def reconcile(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Only this model; without it, all of them.")
    ] = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Let a hand-moved alias stand; needs MODEL and --reason.")
    ] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """End what a crash left half done, and put back an alias that was moved by hand."""
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    if adopt and model is None:
        raise typer.BadParameter("name the model whose alias shall stand: clm reconcile MODEL --adopt")
    with open_services(load_settings()) as services:
        done = [
            change
            for model_id in ([model] if model else services.ledger.promotions.models())
            for change in services.promotions.reconcile(
                model_id, this_user(), services.clock(), adopt, reason
            )
        ]
    _print(done, as_json)


def _parts(version: str) -> tuple[str, str]:
    model_id, separator, label = version.rpartition("@")
    if not (model_id and separator and label):
        raise typer.BadParameter(f"{version!r} is not MODEL@VERSION, see `clm models`")
    return model_id, label


def this_user() -> "Actor":
    """Whoever can open the database and the files under the home folder owns this installation."""
    import getpass

    from clm_core.domain.actors import Actor
    from clm_core.domain.vocabulary import Role

    return Actor(name=getpass.getuser(), role=Role.ADMIN)


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
        typer.echo("What serves is what the ledger says: nothing to do.")


def _sentence(change: "Promotion") -> str:
    from clm_core.domain.promotions import PromotionKind, PromotionState

    model_id, before, after = change.model_id, change.from_version or "nothing", change.to_version
    if change.state is PromotionState.ABORTED:
        return f"{model_id}: the {change.kind} to {after} was interrupted and is undone, {before} serves."
    if change.kind is PromotionKind.ALIAS_MOVED:
        return f"{model_id}: {change.reason}; it is put back, {before} serves."
    if change.kind is PromotionKind.LOSS:
        return (
            f"{model_id}: {before} was deleted in MLflow and NOTHING SERVES. "
            f"Go back with: clm rollback {model_id} --reason ..."
        )
    until = f" Forced until {change.expires_at:%Y-%m-%d %H:%M} UTC." if change.expires_at else ""
    return f"{model_id}: {after} serves ({change.kind}), before it {before} did.{until}"
