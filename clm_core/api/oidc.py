"""JWTs of an OpenID Connect provider, accepted beside the tokens of CLM.

The algorithms are pinned in the settings and asymmetric, so that neither `none` nor a public key used as an
HMAC secret is a valid signature. Issuer, audience and times are verified, and a claim gives the role.
"""

import hashlib
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import httpx
import jwt
from pydantic import ValidationError

from clm_core.domain.api_settings import OIDCSettings
from clm_core.domain.errors import NotAuthenticated, ServerUnavailable
from clm_core.domain.tokens import Token
from clm_core.domain.vocabulary import Role

REQUIRED_CLAIMS = ["exp", "iat", "iss", "aud", "sub"]
ANSWER_WITHIN_SECONDS = 5
KEYS_LAST_SECONDS = 300


class Provider:
    """OpenID Connect provider whose signing keys verify JWTs."""

    def __init__(self, settings: OIDCSettings) -> None:
        self._settings = settings

    def authenticate(self, encoded: str) -> Token:
        """Subject and role of a JWT, valid until the JWT expires.

        Raises:
            NotAuthenticated: signature, issuer, audience or times are invalid, or no role is granted.
            ServerUnavailable: the provider's keys cannot be fetched.
        """
        try:
            key = self._keys.get_signing_key_from_jwt(encoded)
            claims = jwt.decode(
                encoded,
                key.key,
                algorithms=list(self._settings.algorithms),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_seconds,
                options={"require": REQUIRED_CLAIMS, "enforce_minimum_key_length": True},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise _unavailable(error) from error
        except jwt.PyJWTError as error:
            raise NotAuthenticated(
                f"The JWT is not valid ({error}): sign in again, or ask an admin for a token."
            ) from error
        return self._token(claims)

    def _token(self, claims: dict[str, Any]) -> Token:
        issuer = self._settings.issuer
        subject = str(claims["sub"])
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
                f"The JWT's claim {self._settings.name_claim} is not a valid name for the audit log."
            ) from error

    def _role(self, claims: dict[str, Any]) -> Role:
        """Highest role granted by the claim, a string or a list of strings."""
        claim = claims.get(self._settings.role_claim, [])
        groups = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
        granted = [self._settings.roles[group] for group in groups if group in self._settings.roles]
        if not granted:
            raise NotAuthenticated(
                f"The JWT's claim {self._settings.role_claim} grants no role: an admin maps its values to "
                "roles under [api.oidc] roles."
            )
        return max(granted, key=list(Role).index)

    @cached_property
    def _keys(self) -> jwt.PyJWKClient:
        return jwt.PyJWKClient(
            self._settings.jwks_url or _discovered(self._settings.issuer),
            timeout=ANSWER_WITHIN_SECONDS,
            lifespan=KEYS_LAST_SECONDS,
        )


def looks_like_jwt(credentials: str) -> bool:
    return credentials.count(".") == 2


def _discovered(issuer: str) -> str:
    """URL of the provider's JSON Web Key Set (OpenID Connect Discovery 1.0, section 4)."""
    address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        metadata = httpx.get(address, timeout=ANSWER_WITHIN_SECONDS).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise _unavailable(error) from error
    if metadata.get("issuer") != issuer:
        raise ServerUnavailable(f"{address} has another issuer: correct [api.oidc] issuer.")
    return str(metadata["jwks_uri"])


def _unavailable(error: Exception) -> ServerUnavailable:
    return ServerUnavailable(
        f"The keys of the identity provider cannot be fetched ({error}): try again, or use a token of CLM."
    )
