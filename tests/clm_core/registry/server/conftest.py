"""A guarded server, MLflow alone beside it, and credentials of every role."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

import httpx
import pytest
from mlflow_servers import ALONE, GUARDED, MLflowServer, serving

from clm_core.domain.actors import Actor
from clm_core.domain.tokens import Secret, new_token
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

ADA = Actor(name="ada", role=Role.ADMIN)
IssueToken = Callable[..., str]


@pytest.fixture(scope="session")
def guarded(services: Services) -> Iterator[MLflowServer]:
    # all callers of the tests have one address; webhooks of a test are sent at once
    variables = {"CLM_API__FAILED_LOGINS_PER_MINUTE": "10000", "MLFLOW_WEBHOOK_CACHE_TTL": "0"}
    with serving(services, GUARDED, **variables) as server:
        yield server


@pytest.fixture(scope="session")
def alone(services: Services) -> Iterator[MLflowServer]:
    """MLflow without the guard, on which the attacks succeed."""
    with serving(services, ALONE) as server:
        yield server


@pytest.fixture(scope="session")
def issue(services: Services) -> IssueToken:
    """Function that issues a token and returns its secret."""

    def issue(role: Role = Role.VIEWER, lasts: timedelta = timedelta(days=1)) -> str:
        secret = Secret.generate(secrets.token_bytes)
        token = new_token(secret, f"a {role}", role, ADA, services.clock(), lasts)
        services.ledger.tokens.issue(token, secret, ADA)
        return secret.text

    return issue


@pytest.fixture(scope="session")
def tokens(issue: IssueToken) -> Mapping[Role, str]:
    return {role: issue(role) for role in Role}


@pytest.fixture(scope="session")
def clients(
    guarded: MLflowServer, tokens: Mapping[Role, str]
) -> Iterator[Mapping[Role | None, httpx.Client]]:
    """Client of every role, and of nobody."""
    opened: dict[Role | None, httpx.Client] = {
        role: guarded.client({"Authorization": f"Bearer {secret}"}) for role, secret in tokens.items()
    }
    opened[None] = guarded.client()
    yield opened
    for client in opened.values():
        client.close()
