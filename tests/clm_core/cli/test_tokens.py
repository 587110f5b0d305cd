import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.errors import NotFound
from clm_core.services import Services

Clm = Callable[..., str]


@pytest.fixture
def clm(home: Path, services: Services, monkeypatch: pytest.MonkeyPatch) -> Clm:
    """Runs a command in process; errors are raised as for `main`."""
    monkeypatch.setenv("CLM_HOME", str(home))

    def run(*words: object) -> str:
        return CliRunner().invoke(app, ["tokens", *map(str, words)], catch_exceptions=False).stdout

    return run


def test_a_secret_is_printed_once_and_valid_until_revoked(clm: Clm, services: Services) -> None:
    secret = clm("create", "airflow", "--role", "operator", "--days", 30).strip()
    token = services.ledger.tokens.authenticate(secret, services.clock())
    assert (token.name, token.role, (token.expires_at - token.created_at).days) == ("airflow", "operator", 30)
    listed = clm("list")
    assert "airflow" in listed
    assert secret not in listed
    assert "was revoked at" in clm("revoke", token.id)
    assert json.loads(clm("revoke", token.id, "--json"))["id"] == token.id
    [listed] = [each for each in json.loads(clm("list", "--json")) if each["id"] == token.id]
    assert listed["revoked_at"] is not None


def test_an_unknown_token_cannot_be_revoked(clm: Clm) -> None:
    with pytest.raises(NotFound, match="`clm tokens list` shows the tokens"):
        clm("revoke", "0" * 12)
