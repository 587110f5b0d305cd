"""Tokens: an admin's."""

import secrets
from datetime import timedelta
from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from clm_core.api.auth import Caller
from clm_core.api.context import Connected
from clm_core.domain.tokens import Name, Secret, Token, new_token
from clm_core.domain.vocabulary import Role


class TokenRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="Whose it is; stands in the audit as who acted.")
    role: Role
    days: int = Field(default=90, ge=1, le=3650, description="How long it lasts.")


class CreatedToken(BaseModel):
    token: Token
    secret: str
    """Shown this once; only its hash is kept."""


def list_tokens(clm: Connected) -> list[Token]:
    """All tokens there ever were, newest first; never their secrets."""
    return clm.ledger.tokens.tokens()


def create_token(asked: TokenRequest, actor: Caller, clm: Connected) -> CreatedToken:
    """A new token. Its secret is in the answer and nowhere else; an Idempotency-Key has no effect here."""
    secret = Secret.draw(secrets.token_bytes)
    lasts = timedelta(days=asked.days)
    token = clm.ledger.tokens.issue(
        new_token(secret, asked.name, asked.role, actor, clm.clock(), lasts), secret, actor
    )
    return CreatedToken(token=token, secret=secret.text)


def revoke_token(
    token_id: Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")], actor: Caller, clm: Connected
) -> Token:
    """It opens nothing from now on."""
    return clm.ledger.tokens.revoke(token_id, actor, clm.clock())
