"""Administration of tokens."""

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

    name: Name = Field(description="Owner of the token; the name of the actor in the audit log.")
    role: Role
    days: int = Field(default=90, ge=1, le=3650, description="Validity, days.")


class CreatedToken(BaseModel):
    token: Token
    secret: str
    """Secret of the token, shown once; only a hash is stored."""


def list_tokens(clm: Connected) -> list[Token]:
    """All tokens, expired and revoked included, newest first, without secrets."""
    return clm.ledger.tokens.tokens()


def create_token(body: TokenRequest, actor: Caller, clm: Connected) -> CreatedToken:
    """Create a token. The secret is in the response only; an Idempotency-Key has no effect here."""
    secret = Secret.generate(secrets.token_bytes)
    lasts = timedelta(days=body.days)
    token = clm.ledger.tokens.issue(
        new_token(secret, body.name, body.role, actor, clm.clock(), lasts), secret, actor
    )
    return CreatedToken(token=token, secret=secret.text)


def revoke_token(
    token_id: Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")], actor: Caller, clm: Connected
) -> Token:
    """Revoke a token at once."""
    return clm.ledger.tokens.revoke(token_id, actor, clm.clock())
