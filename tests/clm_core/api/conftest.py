"""The API over real services: called in this process, or served on a port."""

import itertools
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from clm_core.api.app import create_app
from clm_core.domain.actors import Actor, Role
from clm_core.domain.tokens import Secret, new_token
from clm_core.services import Services
from clm_core.settings import ApiSettings, WebhookSource

OLD, NEW = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_plJ3nmyCDGBKInavdOK15jsl8nUjcLkM"
ADMIN = Actor(name="root", role=Role.ADMIN)

Client = Callable[[Role | None], TestClient]


@pytest.fixture(scope="session")
def wired(services: Services) -> Services:
    """With a webhook source in the middle of replacing its secret, and room for many writes."""
    settings = services.settings.model_copy(
        update={
            "api": ApiSettings(
                hosts=("testserver", "127.0.0.1"), writes_per_minute=100_000, body_seconds=0.5
            ),
            "webhooks": {"monitor": WebhookSource(secrets=(SecretStr(OLD), SecretStr(NEW)))},
        }
    )
    return replace(services, settings=settings)


@pytest.fixture(scope="session")
def api(wired: Services) -> FastAPI:
    return create_app(wired)


MakeToken = Callable[..., str]


@pytest.fixture(scope="session")
def make_token(services: Services) -> MakeToken:
    """A token's secret."""

    def make(role: Role, name: str = "ada", lasts: timedelta = timedelta(days=1)) -> str:
        secret = Secret.draw(secrets.token_bytes)
        token = new_token(secret, name, role, ADMIN, datetime.now(UTC), lasts)
        services.ledger.tokens.issue(token, secret, ADMIN)
        return secret.text

    return make


@pytest.fixture(scope="session")
def client(api: FastAPI, make_token: MakeToken) -> Client:
    """Of somebody in a role, always with the same token; None: with none."""
    headers = {role: {"Authorization": f"Bearer {make_token(role, role.value)}"} for role in Role}
    clients = {
        role: TestClient(api, headers=headers.get(role), raise_server_exceptions=False)
        for role in (*Role, None)
    }
    return clients.__getitem__


_numbers = itertools.count(1)


@pytest.fixture
def fresh_id() -> str:
    """Like no other in this run."""
    return f"test-{next(_numbers)}"
