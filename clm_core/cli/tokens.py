"""`clm tokens`: tokens of the REST API with role and expiry."""

import json
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAVY
from rich.table import Table

from clm_core.cli.output import AsJson, plain
from clm_core.cli.running import services_to_look
from clm_core.cli.settings_in_force import settings_for_change
from clm_core.domain.vocabulary import Role

app = typer.Typer(help="Tokens for the REST API: create, list and revoke them.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Owner of the token, the name of the actor in the audit log.")],
    role: Annotated[
        Role,
        typer.Option(
            help="reporter sends fills alone, scraper reads metrics alone, viewer reads, operator retrains "
            "and promotes, admin forces."
        ),
    ],
    days: Annotated[int, typer.Option(min=1, max=3650, help="Validity, days.")] = 90,
    as_json: AsJson = False,
) -> None:
    """Create a token and print the secret once; only a hash is stored."""
    import secrets
    from datetime import timedelta

    from pydantic import ValidationError

    from clm_core.cli.promotion import this_user
    from clm_core.domain.tokens import Secret, new_token
    from clm_core.services import open_services

    with open_services(settings_for_change()) as services:
        actor = this_user()
        secret = Secret.generate(secrets.token_bytes)
        try:
            token = new_token(secret, name, role, actor, services.clock(), timedelta(days=days))
        except ValidationError as error:
            raise typer.BadParameter(f"{name!r} is not a name of letters, digits and . _ @ + -") from error
        services.ledger.tokens.issue(token, secret, actor)
    if as_json:
        typer.echo(json.dumps({"token": token.model_dump(mode="json"), "secret": secret.text}, indent=2))
        return
    typer.echo(secret.text)
    typer.echo(
        f"Token {token.id} of {token.name}, {token.role}, until {token.expires_at:%Y-%m-%d %H:%M} UTC. "
        "Store the secret now: it is not shown again.",
        err=True,
    )


@app.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """List all tokens, expired and revoked included, newest first."""

    with services_to_look() as services:
        tokens = services.ledger.tokens.tokens()
        now = services.clock()
    if as_json:
        typer.echo(json.dumps([token.model_dump(mode="json") for token in tokens], indent=2))
        return
    table = Table(box=SIMPLE_HEAVY)
    for column in ("token", "name", "role", "created (UTC)", "by", "last used (UTC)", "state"):
        table.add_column(column, no_wrap=True)
    for token in tokens:
        used = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never"
        state = token.refusal(now) or f"until {token.expires_at:%Y-%m-%d %H:%M}"
        created = f"{token.created_at:%Y-%m-%d %H:%M}"
        table.add_row(token.id, token.name, token.role, created, token.created_by, used, state)
    plain.print(table if tokens else "No tokens yet: `clm tokens create NAME --role viewer` creates one.")


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(help="Token id, as in `clm tokens list`.")], as_json: AsJson = False
) -> None:
    """Revoke a token at once."""
    from clm_core.cli.promotion import this_user
    from clm_core.services import open_services

    with open_services(settings_for_change()) as services:
        revoked = services.ledger.tokens.revoke(token, this_user(), services.clock())
    if as_json:
        typer.echo(revoked.model_dump_json(indent=2))
    else:
        typer.echo(f"Token {revoked.id} of {revoked.name} {revoked.refusal(services.clock())}.")
