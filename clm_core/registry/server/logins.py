"""Credentials for MLflow's server: the password of the home, tokens of CLM, and the cookie of a browser."""

import base64
import binascii
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Protocol

from itsdangerous import BadSignature, URLSafeSerializer

from clm_core.domain.errors import NotAuthenticated
from clm_core.domain.tokens import Secret, Token
from clm_core.domain.vocabulary import Role
from clm_core.platform.rate_limits import RateLimits
from clm_core.platform.stack_state import PREFECT_USER

SESSION_LASTS = timedelta(hours=12)
SEND = (
    "Log in: set MLFLOW_TRACKING_TOKEN to a token of `clm tokens create`, or MLFLOW_TRACKING_USERNAME=clm "
    "and MLFLOW_TRACKING_PASSWORD to the password in stack/prefect.auth of the home."
)


class Tokens(Protocol):
    """Tokens in the ledger."""

    def authenticate(self, presented: str) -> Token: ...

    def valid(self, token_id: str) -> Token: ...


@dataclass(frozen=True)
class Login:
    """Caller of the server."""

    name: str
    role: Role
    subject: str
    """Id of the token, or the name of the user with the password."""
    by_cookie: bool = False


class Logins:
    """Verification of credentials; every method may ask the database."""

    def __init__(
        self, password: str, tokens: Tokens, limits: RateLimits, clock: Callable[[], datetime]
    ) -> None:
        """
        Args:
            password: password of the user `clm`, the same as Prefect's.
        """
        self._password = password.encode()
        self._tokens = tokens
        self._limits = limits
        self._clock = clock
        # a new password ends all sessions
        key = hmac.new(self._password, b"clm mlflow session", sha256).digest()
        self._sessions = URLSafeSerializer(key, signer_kwargs={"digest_method": sha256})

    def of_request(self, authorization: str | None, cookie: str | None, address: str) -> Login:
        """Caller by the header `Authorization`, or else by the cookie.

        Args:
            address: network address of the caller, whose wrong credentials are counted.

        Raises:
            NotAuthenticated: no credential, or one that is wrong, expired or revoked.
            TooManyRequests: too many wrong credentials from the address.
        """
        if authorization is None:
            return self._of_cookie(cookie)
        scheme, _, value = authorization.partition(" ")
        match scheme.lower():
            case "bearer":
                return self.of_secret(value.strip(), address)
            case "basic":
                return self.of_secret(_basic_secret(value), address)
        raise NotAuthenticated(SEND)

    def of_secret(self, secret: str, address: str) -> Login:
        """Caller by a password (`PASSWORD`, or `clm:PASSWORD` as in the file) or a token (`TOKEN`, or
        `ANYBODY:TOKEN`).

        Raises:
            NotAuthenticated: the secret is wrong, expired or revoked.
            TooManyRequests: too many wrong secrets from the address.
        """
        given = secret.encode()
        with_user = f"{PREFECT_USER}:".encode() + self._password
        # both compared, so that the time tells nothing
        if hmac.compare_digest(given, self._password) | hmac.compare_digest(given, with_user):
            return Login(PREFECT_USER, Role.OPERATOR, PREFECT_USER)
        token = secret.partition(":")[2] or secret
        try:
            if Secret.parse(token) is None:
                raise NotAuthenticated("The password or token is wrong: check that all of it was copied.")
            return _login(self._tokens.authenticate(token))
        except NotAuthenticated:
            self._limits.count_failed_login(address)
            raise

    def session(self, login: Login) -> str:
        """Value of the cookie of a login."""
        ends = self._clock() + SESSION_LASTS
        return str(self._sessions.dumps([login.subject, int(ends.timestamp())]))

    def _of_cookie(self, cookie: str | None) -> Login:
        if cookie is None:
            raise NotAuthenticated(SEND)
        try:
            subject, ends = self._sessions.loads(cookie)
        except BadSignature as error:
            raise NotAuthenticated(SEND) from error
        if not self._clock().timestamp() < ends:
            raise NotAuthenticated("The session has ended: log in again.")
        if subject == PREFECT_USER:
            return Login(PREFECT_USER, Role.OPERATOR, subject, by_cookie=True)
        return _login(self._tokens.valid(subject), by_cookie=True)


def _login(token: Token, by_cookie: bool = False) -> Login:
    return Login(token.name, token.role, token.id, by_cookie)


def _basic_secret(value: str) -> str:
    """`user:password` of HTTP Basic."""
    try:
        return base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise NotAuthenticated(SEND) from error
