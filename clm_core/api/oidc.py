"""Tokens of an identity provider (OpenID Connect): JWTs, beside our own tokens.

The algorithms are pinned in the settings and asymmetric, so neither `none` nor a public key used as an HMAC
secret signs anything; issuer, audience and the times are checked, and a claim names the role.
"""

import hashlib
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import httpx
import jwt
from pydantic import ValidationError

from clm_core.domain.errors import NotAuthenticated, ServerUnavailable
from clm_core.domain.tokens import Token
from clm_core.domain.vocabulary import Role
from clm_core.settings import OIDCSettings

REQUIRED = ["exp", "iat", "iss", "aud", "sub"]
ANSWER_WITHIN_SECONDS = 5
KEYS_LAST_SECONDS = 300


class Provider:
    """Vouches for people by what it has signed."""

    def __init__(self, settings: OIDCSettings) -> None:
        self._settings = settings

    def authenticate(self, shown: str) -> Token:
        """Whom the JWT speaks of, for as long as it lasts.

        Raises:
            NotAuthenticated: it is not the provider's, not for us, not of this hour, or gives no role.
            ServerUnavailable: the provider does not tell its keys.
        """
        try:
            key = self._keys.get_signing_key_from_jwt(shown)
            claims = jwt.decode(
                shown,
                key.key,
                algorithms=list(self._settings.algorithms),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_seconds,
                options={"require": REQUIRED, "enforce_minimum_key_length": True},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise _unavailable(error) from error
        except jwt.PyJWTError as error:
            raise NotAuthenticated(
                f"The JWT opens nothing ({error}): sign in again, or ask an admin for a token."
            ) from error
        return self._token(claims)

    def _token(self, claims: dict[str, Any]) -> Token:
        issuer, subject = self._settings.issuer, str(claims["sub"])
        try:
            return Token(
                id=hashlib.sha256(f"{issuer}\n{subject}".encode()).hexdigest()[:12],
                name=claims.get(self._settings.name_claim, subject),
                role=self._role(claims),
                created_by=issuer,
                created_at=datetime.fromtimestamp(claims["iat"], UTC),
                expires_at=datetime.fromtimestamp(claims["exp"], UTC),
            )
        except ValidationError as error:
            raise NotAuthenticated(
                f"The JWT's claim {self._settings.name_claim} is no name we can write into the audit."
            ) from error

    def _role(self, claims: dict[str, Any]) -> Role:
        """The greatest that the claim, a word or a list of them, gives."""
        said = claims.get(self._settings.role_claim, [])
        words = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        given = [self._settings.roles[word] for word in words if word in self._settings.roles]
        if not given:
            raise NotAuthenticated(
                f"The JWT's claim {self._settings.role_claim} gives no role here: an admin maps its words to "
                "roles under [api.oidc] roles."
            )
        return max(given, key=list(Role).index)

    @cached_property
    def _keys(self) -> jwt.PyJWKClient:
        return jwt.PyJWKClient(
            self._settings.jwks_url or _discovered(self._settings.issuer),
            timeout=ANSWER_WITHIN_SECONDS,
            lifespan=KEYS_LAST_SECONDS,
        )


def looks_like_jwt(shown: str) -> bool:
    return shown.count(".") == 2


def _discovered(issuer: str) -> str:
    """Where the provider says its keys are (OpenID Connect Discovery 1.0, section 4)."""
    address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        said = httpx.get(address, timeout=ANSWER_WITHIN_SECONDS).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise _unavailable(error) from error
    if said.get("issuer") != issuer:
        raise ServerUnavailable(f"{address} speaks for another issuer: correct [api.oidc] issuer.")
    return str(said["jwks_uri"])


def _unavailable(error: Exception) -> ServerUnavailable:
    return ServerUnavailable(
        f"The identity provider does not tell its keys ({error}): try again, or use a token of ours."
    )
