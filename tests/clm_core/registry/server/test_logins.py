"""Passwords, tokens and sessions for MLflow's server."""

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from clm_core.domain.actors import Actor
from clm_core.domain.errors import NotAuthenticated, TooManyRequests
from clm_core.domain.vocabulary import Role
from clm_core.platform.rate_limits import RateLimits
from clm_core.registry.server.logins import SESSION_LASTS, Logins
from clm_core.services import Services

ADA = Actor(name="ada", role=Role.ADMIN)
PASSWORD = "a-password-of-the-home"


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logins(services: Services, clock: Clock) -> Logins:
    return Logins(PASSWORD, services.ledger.tokens, RateLimits(1000, 60), clock)


def basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def test_the_password_belongs_to_the_user_clm(logins: Logins) -> None:
    login = logins.of_request(basic("clm", PASSWORD), None, "here")
    assert (login.name, login.role) == ("clm", Role.OPERATOR)
    for user in ("ada", "CLM", ""):
        with pytest.raises(NotAuthenticated):
            logins.of_request(basic(user, PASSWORD), None, "here")


@pytest.mark.parametrize("role", list(Role))
def test_a_token_is_accepted_as_mlflow_sends_it(
    role: Role, logins: Logins, issue: Callable[[Role], str]
) -> None:
    secret = issue(role)
    for header in (f"Bearer {secret}", f"bearer {secret}", basic("ada", secret), basic("clm", secret)):
        assert logins.of_request(header, None, "here").role is role


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer clm_000000000000_" + 64 * "0",
        f"Digest {PASSWORD}",
        PASSWORD,
        "Basic",
        "Basic !",
        "Basic " + base64.b64encode(b"\xff\xfe").decode(),
        basic("clm", ""),
        basic("clm", PASSWORD + "x"),
        basic("clm", PASSWORD[:-1]),
        "Bearer é",
    ],
)
def test_any_other_credential_is_refused(header: str | None, logins: Logins) -> None:
    with pytest.raises(NotAuthenticated):
        logins.of_request(header, None, "here")


def test_an_expired_or_revoked_token_is_refused(
    services: Services, logins: Logins, clock: Clock, issue: Callable[..., str]
) -> None:
    expired = issue(Role.VIEWER, timedelta(microseconds=1))
    revoked = issue(Role.VIEWER)
    services.ledger.tokens.revoke(revoked[4:16], ADA, clock())
    with pytest.raises(NotAuthenticated, match="was revoked"):
        logins.of_secret(revoked, "here")
    with pytest.raises(NotAuthenticated, match="expired"):
        logins.of_secret(expired, "here")


def test_a_session_ends_with_its_time_its_token_and_the_password(
    services: Services, logins: Logins, clock: Clock, issue: Callable[..., str]
) -> None:
    secret = issue(Role.OPERATOR)
    cookie = logins.session(logins.of_secret(secret, "here"))
    by_password = logins.session(logins.of_secret(PASSWORD, "here"))
    assert logins.of_request(None, cookie, "here").role is Role.OPERATOR
    assert logins.of_request(None, by_password, "here").by_cookie
    services.ledger.tokens.revoke(secret[4:16], ADA, clock())
    with pytest.raises(NotAuthenticated, match="was revoked"):
        logins.of_request(None, cookie, "here")
    other = Logins("another password", services.ledger.tokens, RateLimits(1000, 60), clock)
    with pytest.raises(NotAuthenticated):
        other.of_request(None, by_password, "here")
    clock.now += SESSION_LASTS
    with pytest.raises(NotAuthenticated, match="session has ended"):
        logins.of_request(None, by_password, "here")


def test_a_session_cannot_be_changed(logins: Logins) -> None:
    login = logins.of_secret(PASSWORD, "here")
    cookie = logins.session(login)
    payload, _, signature = cookie.rpartition(".")
    of_another = logins.session(replace(login, subject="0" * 12)).rpartition(".")[0]
    for forged in ("", "x", payload, f"{payload}.", f"{of_another}.{signature}", f"{payload}x.{signature}"):
        with pytest.raises(NotAuthenticated):
            logins.of_request(None, forged, "here")


def test_a_cookie_does_not_help_a_wrong_header(logins: Logins) -> None:
    cookie = logins.session(logins.of_secret(PASSWORD, "here"))
    with pytest.raises(NotAuthenticated):
        logins.of_request("Bearer wrong", cookie, "here")


def test_wrong_credentials_are_limited_by_address_and_right_ones_are_not(
    services: Services, clock: Clock
) -> None:
    logins = Logins(PASSWORD, services.ledger.tokens, RateLimits(2, 60), clock)
    for _ in range(2):
        with pytest.raises(NotAuthenticated):
            logins.of_secret("guess", "here")
    for _ in range(3):
        with pytest.raises(TooManyRequests):
            logins.of_secret("guess", "here")
    assert logins.of_secret(PASSWORD, "here").name == "clm"
    with pytest.raises(NotAuthenticated):
        logins.of_secret("guess", "elsewhere")
