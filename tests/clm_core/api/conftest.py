"""REST API over real services, called in process or served on a port."""

import contextlib
import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import promoting
import pytest
from api_servers import Server, serving_api
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from clm_core.api.app import create_app
from clm_core.domain.actors import Actor
from clm_core.domain.api_settings import ApiSettings
from clm_core.domain.tokens import Secret, new_token
from clm_core.domain.vocabulary import Role
from clm_core.domain.webhook_settings import SigningStyle, WebhookSource
from clm_core.services import Services

OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_plJ3nmyCDGBKInavdOK15jsl8nUjcLkM"
GITHUB = "It's a Secret to Everybody"
MLFLOW = "nobody knows the trouble I have seen"
ADMIN = Actor(name="root", role=Role.ADMIN)

Client = Callable[[Role | None], TestClient]


@pytest.fixture(scope="session")
def wired(services: Services) -> Services:
    """Services with webhook sources, a source with two secrets among them, and high rate limits."""
    settings = services.settings.model_copy(
        update={
            "api": ApiSettings(
                hosts=("testserver", "127.0.0.1"),
                writes_per_minute=100_000,
                failed_logins_per_minute=100_000,
                body_seconds=0.5,
            ),
            "webhooks": {
                "monitor": WebhookSource(secrets=(SecretStr(OLD), SecretStr(NEW))),
                "github": WebhookSource(style=SigningStyle.GITHUB, secrets=(SecretStr(GITHUB),)),
                "mlflow": WebhookSource(style=SigningStyle.MLFLOW, secrets=(SecretStr(MLFLOW),)),
            },
        }
    )
    return replace(services, settings=settings, policies=promoting.THRESHOLDS_ALONE)


@pytest.fixture(scope="session")
def api(wired: Services) -> FastAPI:
    return create_app(wired)


MakeToken = Callable[..., str]


@pytest.fixture(scope="session")
def issue_token() -> Callable[..., str]:
    """Function that creates a token of an installation and returns the secret."""

    def issue(clm: Services, role: Role, name: str = "ada", lasts: timedelta = timedelta(days=1)) -> str:
        secret = Secret.generate(secrets.token_bytes)
        token = new_token(secret, name, role, ADMIN, datetime.now(UTC), lasts)
        clm.ledger.tokens.issue(token, secret, ADMIN)
        return secret.text

    return issue


@pytest.fixture(scope="session")
def make_token(services: Services, issue_token: Callable[..., str]) -> MakeToken:
    """Function that creates a token and returns the secret."""
    return partial(issue_token, services)


@pytest.fixture(scope="session")
def client(api: FastAPI, make_token: MakeToken) -> Client:
    """Client for each role, always with the same token, or without a token for None."""
    headers = {role: {"Authorization": f"Bearer {make_token(role, role.value)}"} for role in Role}
    clients = {
        role: TestClient(api, headers=headers.get(role), raise_server_exceptions=False)
        for role in (*Role, None)
    }
    return clients.__getitem__


_numbers = itertools.count(1)


@pytest.fixture
def fresh_id() -> str:
    """Id unique in the test run."""
    return f"test-{next(_numbers)}"


Serve = Callable[[Services], contextlib.AbstractContextManager[Server]]


@pytest.fixture(scope="session")
def serve() -> Serve:
    return serving_api


@pytest.fixture(scope="session")
def server(serve: Serve, wired: Services) -> Iterator[Server]:
    with serve(wired) as running:
        yield running
