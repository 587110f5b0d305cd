import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from clm_core.api.app import create_app
from clm_core.domain.api_settings import ApiSettings
from clm_core.domain.tokens import Secret
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]
MakeToken = Callable[..., str]


def status_with(client: Client, secret: str) -> int:
    return client(None).get("/clm/jobs", headers={"Authorization": f"Bearer {secret}"}).status_code


def test_a_token_created_over_http_is_valid_until_revoked(client: Client) -> None:
    made = client(Role.ADMIN).post("/clm/tokens", json={"name": "grace", "role": "viewer", "days": 7})
    assert made.status_code == 201
    token = made.json()["token"]
    secret = made.json()["secret"]
    assert status_with(client, secret) == 200
    assert client(Role.ADMIN).delete(f"/clm/tokens/{token['id']}").json()["revoked_at"] is not None
    assert status_with(client, secret) == 401


def test_the_secret_is_neither_listed_nor_stored(client: Client, ledger_engine: Engine) -> None:
    secret = client(Role.ADMIN).post("/clm/tokens", json={"name": "grace", "role": "viewer"}).json()["secret"]
    random_part = secret.rpartition("_")[2]
    assert random_part not in client(Role.ADMIN).get("/clm/tokens").text
    with ledger_engine.connect() as connection:
        for table in ("api_tokens", "api_replies", "audit_log"):
            rows = connection.scalars(text(f"SELECT t::text FROM {table} t")).all()
            assert not [row for row in rows if random_part in row]


def test_creation_and_revocation_are_in_the_audit_with_the_actor(client: Client, services: Services) -> None:
    made = client(Role.ADMIN).post("/clm/tokens", json={"name": "linus", "role": "operator"}).json()["token"]
    for _ in range(2):
        assert client(Role.ADMIN).delete(f"/clm/tokens/{made['id']}").status_code == 200
    entries = [entry for entry in services.ledger.audit_after(0, 10**6) if made["id"] in entry.subject]
    assert [(entry.action, entry.actor, entry.role) for entry in entries] == [
        ("token_created", "admin", "admin"),
        ("token_revoked", "admin", "admin"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda secret: "", id="empty"),
        pytest.param(lambda secret: "clm_", id="prefix-alone"),
        pytest.param(lambda secret: secret[:-1], id="cut"),
        pytest.param(lambda secret: secret + "0", id="longer"),
        pytest.param(lambda secret: secret[:-1] + ("0" if secret[-1] != "0" else "1"), id="last-digit"),
        pytest.param(lambda secret: secret.upper(), id="upper-case"),
        pytest.param(lambda secret: f"clm_{'0' * 12}{secret[16:]}", id="other-id"),
        pytest.param(lambda secret: f"{secret}\0", id="nul"),
        pytest.param(lambda secret: "clm_" + "٣" * 12 + "_" + "٣" * 64, id="digits-of-another-alphabet"),
    ],
)
def test_a_changed_token_is_refused(
    change: Callable[[str], str], client: Client, make_token: MakeToken
) -> None:
    token = change(make_token(Role.ADMIN)).encode()
    headers = {b"Authorization": b"Bearer " + token}
    assert client(None).get("/clm/jobs", headers=headers).status_code == 401


def test_a_token_is_refused_from_its_expiry(wired: Services, make_token: MakeToken) -> None:
    secret = make_token(Role.VIEWER, lasts=timedelta(minutes=10))
    expires_at = wired.ledger.tokens.authenticate(secret, datetime.now(UTC)).expires_at
    for moment, status in ((expires_at - timedelta(microseconds=1), 200), (expires_at, 401)):
        app = create_app(replace(wired, clock=lambda moment=moment: moment))
        answer = TestClient(app).get("/clm/jobs", headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == status
    assert "expired at" in answer.json()["detail"]


def test_the_last_use_is_recorded_to_the_minute(services: Services, make_token: MakeToken) -> None:
    secret = make_token(Role.VIEWER)
    first = datetime.now(UTC)
    last_uses = [
        services.ledger.tokens.authenticate(secret, first + timedelta(seconds=after)).last_used_at
        for after in (0, 59, 60, 61)
    ]
    # what was noted before the use that is asked about
    assert last_uses == [None, first, first, first + timedelta(seconds=60)]


def test_the_eleventh_wrong_token_in_a_minute_is_limited_and_a_valid_token_is_not(
    wired: Services, make_token: MakeToken
) -> None:
    app = create_app(replace(wired, settings=wired.settings.model_copy(update={"api": limited()})))
    browser = TestClient(app)
    right = {"Authorization": f"Bearer {make_token(Role.VIEWER)}"}
    wrong = {"Authorization": f"Bearer {Secret.generate(bytes).text}"}
    assert [browser.get("/clm/jobs", headers=wrong).status_code for _ in range(12)] == [401] * 10 + [429] * 2
    refused = browser.get("/clm/jobs", headers=wrong)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert browser.get("/clm/jobs", headers=right).status_code == 200
    elsewhere = TestClient(app, client=("10.0.0.2", 1))
    assert elsewhere.get("/clm/jobs", headers=wrong).status_code == 401


def test_the_writes_of_each_token_are_counted_separately(wired: Services, make_token: MakeToken) -> None:
    app = create_app(replace(wired, settings=wired.settings.model_copy(update={"api": limited()})))
    browser = TestClient(app)
    one, other = ({"Authorization": f"Bearer {make_token(Role.ADMIN)}"} for _ in range(2))
    writes = [browser.delete(f"/clm/tokens/{'0' * 12}", headers=one).status_code for _ in range(4)]
    assert writes == [404, 404, 404, 429]
    assert browser.delete(f"/clm/tokens/{'0' * 12}", headers=other).status_code == 404
    assert browser.get("/clm/jobs", headers=one).status_code == 200


def limited() -> ApiSettings:
    return ApiSettings(hosts=("testserver",), writes_per_minute=3)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "role": "viewer"},
        {"name": "a\nb", "role": "viewer"},
        {"name": "a\u0000", "role": "viewer"},
        {"name": "x" * 101, "role": "viewer"},
        {"name": "ada", "role": "root"},
        {"name": "ada", "role": "viewer", "days": 0},
        {"name": "ada", "role": "viewer", "days": 3651},
        {"name": "ada", "role": "viewer", "id": "0" * 12},
    ],
    ids=json.dumps,
)
def test_an_invalid_request_for_a_token_is_refused(body: dict[str, object], client: Client) -> None:
    assert client(Role.ADMIN).post("/clm/tokens", json=body).status_code in {400, 422}
