"""Sessions of browsers: a signed cookie that begins with a token and ends with the token.

The cookie names the token, never the secret: each request reads the token from the ledger again, so that a
revocation ends the session. A JWT of the identity provider is not in the ledger; its session holds the name,
the role and the expiry of the JWT.
"""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from itsdangerous import BadSignature, URLSafeSerializer
from pydantic import ValidationError

from clm_core.api.oidc import Provider, looks_like_jwt
from clm_core.domain.errors import NotAuthenticated
from clm_core.domain.tokens import Token
from clm_core.ledger.tokens import TokenStore
from clm_core.platform.private_files import renew_exposed_secret, stored_secret

SESSION_LASTS = timedelta(hours=12)
SIGN_IN = "Sign in with a token: an admin creates one with `clm tokens create`."


@dataclass(frozen=True)
class Session:
    """Session of a signed-in browser."""

    token: Token
    form_key: str
    """Secret of the session, repeated by every form, so that no other site can send a form."""


class Sessions:
    """Beginning and verification of sessions; every method but `form_key` may ask the database."""

    def __init__(
        self, key: str, tokens: TokenStore, provider: Provider | None, clock: Callable[[], datetime]
    ) -> None:
        """
        Args:
            key: secret of the installation for the signature of the cookies.
        """
        self._key = key.encode()
        self._tokens = tokens
        self._provider = provider
        self._clock = clock
        self._signed = URLSafeSerializer(
            self._key, salt=b"clm session", signer_kwargs={"digest_method": sha256}
        )

    def authenticate(self, secret: str) -> Token:
        """Token of a secret or of a JWT, as the REST API accepts both.

        Raises:
            NotAuthenticated: the secret is wrong, expired or revoked.
        """
        if self._provider is not None and looks_like_jwt(secret):
            return self._provider.authenticate(secret)
        return self._tokens.authenticate(secret, self._clock())

    def begin(self, token: Token, secret: str) -> str:
        """Value of the cookie of a new session."""
        ends = min(self._clock() + SESSION_LASTS, token.expires_at)
        subject: Any = token.id
        if self._provider is not None and looks_like_jwt(secret):
            subject = token.model_dump(mode="json")
        return str(self._signed.dumps([secrets.token_hex(16), ends.timestamp(), subject]))

    def of_cookie(self, cookie: str | None) -> Session:
        """
        Raises:
            NotAuthenticated: no cookie, a forged cookie, or an ended session.
        """
        if cookie is None:
            raise NotAuthenticated(SIGN_IN)
        try:
            nonce, ends, subject = self._signed.loads(cookie)
        except (BadSignature, ValueError) as error:
            raise NotAuthenticated(SIGN_IN) from error
        if not self._clock().timestamp() < ends:
            raise NotAuthenticated(f"The session has ended. {SIGN_IN}")
        return Session(self._token(subject), self.form_key(nonce))

    def form_key(self, nonce: str) -> str:
        """Secret repeated by the forms of a browser."""
        return hmac.new(self._key, f"clm form {nonce}".encode(), sha256).hexdigest()

    def _token(self, subject: Any) -> Token:
        if isinstance(subject, str):
            return self._tokens.valid(subject)
        if self._provider is None:
            raise NotAuthenticated(f"The identity provider is no longer in the settings. {SIGN_IN}")
        try:
            return Token.model_validate(subject)
        except ValidationError as error:
            raise NotAuthenticated(SIGN_IN) from error


def session_key(home: Path) -> str:
    """Secret for the signature of a home's cookies, made at the first call; an exposed file is replaced, and
    all sessions end."""
    file = home / "stack" / "api.sessions"
    file.parent.mkdir(parents=True, exist_ok=True)
    renew_exposed_secret(file, _new_key)
    return stored_secret(file, _new_key)


def _new_key() -> str:
    return secrets.token_hex(32)
