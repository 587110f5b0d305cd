"""Authentication and authorisation as dependencies of routes, so that no spelling of a path bypasses them."""

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
    """Access to a route without a token."""

    EVERYBODY = "everybody"
    SIGNER = "signer"
    """Any sender who signs the body with the secret of a webhook source."""
    BROWSER = "browser"
    """Any browser: changes nothing but the session of the browser, and takes a form of this server."""


Access = Role | Open
"""Minimum role of the caller, or access without a token."""

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="Token from `clm tokens create`, or a JWT of the identity provider.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def authenticated(request: Request, credentials: Credentials, clm: Connected, limits: Counted) -> Token:
    """Token of the caller."""
    if credentials is None:
        raise NotAuthenticated(
            "Send a token as Authorization: Bearer clm_...; an admin creates one with `clm tokens create`."
        )
    provider: Provider | None = request.app.state.provider
    try:
        if provider is not None and looks_like_jwt(credentials.credentials):
            token = provider.authenticate(credentials.credentials)
        else:
            token = clm.ledger.tokens.authenticate(credentials.credentials, clm.clock())
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
    """Dependencies that enforce the access of a route."""
    if access in (Open.EVERYBODY, Open.BROWSER):
        return []
    if access is Open.SIGNER:
        return [Depends(verified)]
    assert isinstance(access, Role)
    return [Depends(_requires(access)), *([Depends(_count_write)] if writes else [])]


def _requires(role: Role) -> Callable[[Token], None]:
    def require(token: Authenticated) -> None:
        if not token.role.includes(role):
            raise NotAllowed(
                f"{token.name} has the role {token.role}; this takes the role {role}: ask an admin for "
                "a token of that role."
            )

    return require


def _count_write(token: Authenticated, limits: Counted) -> None:
    limits.count_write(token.id)
