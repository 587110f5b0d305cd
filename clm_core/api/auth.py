"""Who asks, and whether the route is open to them: dependencies, so that no spelling of a path gets past."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from clm_core.api.context import Connected, Counted
from clm_core.api.oidc import Provider, looks_like_jwt
from clm_core.api.signatures import verified
from clm_core.domain.actors import Actor
from clm_core.domain.errors import NotAllowed, NotAuthenticated
from clm_core.domain.tokens import Token
from clm_core.domain.vocabulary import Role


class Open(StrEnum):
    """To whom a route is open that asks for no token."""

    EVERYBODY = "everybody"
    SIGNER = "signer"
    """Who signs the body with the secret of a webhook source."""


Access = Role | Open
"""The least role a route asks for, or how it is open without one."""

_bearer = HTTPBearer(
    auto_error=False, scheme_name="token", description="A token: `clm tokens create` makes one."
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def authenticated(request: Request, shown: Credentials, clm: Connected, limits: Counted) -> Token:
    """The token of whoever asks."""
    if shown is None:
        raise NotAuthenticated(
            "Send a token, as Authorization: Bearer clm_...; an admin makes one with `clm tokens create`."
        )
    provider: Provider | None = request.app.state.provider
    try:
        if provider is not None and looks_like_jwt(shown.credentials):
            token = provider.authenticate(shown.credentials)
        else:
            token = clm.ledger.tokens.authenticate(shown.credentials, clm.clock())
    except NotAuthenticated:
        limits.count_failed_login(request.client.host if request.client else "unknown")
        raise
    request.state.token_id = token.id
    return token


Authenticated = Annotated[Token, Depends(authenticated)]


def _actor(token: Authenticated) -> Actor:
    return token.actor


Caller = Annotated[Actor, Depends(_actor)]


def guards(access: Access, writes: bool) -> list[Any]:
    """The dependencies that let only those in whom a route is open to."""
    if access is Open.EVERYBODY:
        return []
    if access is Open.SIGNER:
        return [Depends(verified)]
    assert isinstance(access, Role)
    return [Depends(_requires(access)), *([Depends(_count_write)] if writes else [])]


def _requires(role: Role) -> Callable[[Token], None]:
    def require(token: Authenticated) -> None:
        if not token.role.includes(role):
            raise NotAllowed(f"{token.name} is a {token.role}, this takes an {role}: ask one.")

    return require


def _count_write(token: Authenticated, limits: Counted) -> None:
    limits.count_write(token.id)
