"""Access to every route by every role, and attempts to bypass the roles."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import create_engine

from clm_core.api.app import create_app, require_policies
from clm_core.api.auth import Open
from clm_core.api.route_table import ROUTES, Route
from clm_core.domain.storage_settings import StorageSettings
from clm_core.domain.vocabulary import Role
from clm_core.ledger.store import Ledger
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]

EXAMPLES = {
    "job_id": str(uuid.UUID(int=1)),
    "model_id": "xgboost_nosuchthing_1h",
    "version": "v20200101_000000",
    "token_id": "0" * 12,
    "source": "nobody",
    "run_id": str(uuid.UUID(int=1)),
    "symbol": "NOSUCHTHING",
    "timeframe": "1h",
    "study": "nosuchthing",
    "replay": "nosuchthing",
}
BODIES = {
    "/clm/train": {"model_type": "xgboost", "symbol": "NOSUCHTHING"},
    "/clm/promote": {"model_id": EXAMPLES["model_id"], "version": EXAMPLES["version"]},
    "/clm/rollback": {"model_id": EXAMPLES["model_id"]},
    "/clm/halt": {"model_id": EXAMPLES["model_id"], "reason": "tested"},
    "/clm/confirm": {"model_id": EXAMPLES["model_id"], "reason": "tested"},
    "/clm/retire": {"model_id": EXAMPLES["model_id"], "version": EXAMPLES["version"]},
    "/clm/tune": {"model_type": "xgboost", "symbol": "NOSUCHTHING"},
    "/clm/evolve": {"model_type": "xgboost", "symbol": "NOSUCHTHING"},
    "/clm/evolve-strategies": {"symbol": "NOSUCHTHING"},
    "/clm/replays": {
        "model_type": "xgboost",
        "symbol": "NOSUCHTHING",
        "start": "2018-07-01",
        "end": "2018-08-01",
    },
    "/clm/approvals/{model_id}": {"version": EXAMPLES["version"], "approve": True},
    "/clm/allocation/{model_id}": {"candidates": [EXAMPLES["version"]]},
    "/clm/allocation/{model_id}/served": {"bars": []},
    "/clm/fills": {"fills": []},
    "/clm/candidates": {"model_type": "momentum", "symbol": "NOSUCHTHING"},
    "/clm/tokens": {"name": "matrix", "role": "viewer"},
    "/webhooks/{source}": {},
}
NEED_PREFECT = {"/clm/watch", "/clm/shadow", "/clm/runs/{run_id}"}
"""Paths that ask a Prefect server, which these tests do without."""
MATRIX = [
    pytest.param(route, role, id=f"{route.method} {route.path} {role or 'no token'}")
    for route in ROUTES
    for role in (*Role, None)
    # the stream does not end: see `test_events`; pages take sessions instead of tokens: see `test_pages`
    if route.path != "/clm/events" and not route.page
]


def refused(route: Route, role: Role | None) -> int | None:
    """Status of a refusal according to the route table; None where the role has access."""
    match route.open_to, role:
        case Open.EVERYBODY, _:
            return None
        case Open.SIGNER, _:
            return 401
        case _, None:
            return 401
        case Role() as required, Role() as given:
            return None if given.includes(required) else 403
    raise AssertionError(route)


@pytest.mark.parametrize(("route", "role"), MATRIX)
def test_each_route_is_open_to_the_roles_of_the_table_only(
    route: Route, role: Role | None, client: Client
) -> None:
    path = route.path.format(**EXAMPLES)
    status = client(role).request(route.method, path, json=BODIES.get(route.path)).status_code
    assert (status in {401, 403}, status if status in {401, 403} else None) == (
        refused(route, role) is not None,
        refused(route, role),
    )
    assert status < 500 or (status == 503 and route.path in NEED_PREFECT)


@pytest.mark.parametrize(
    "spelling",
    [
        "//clm/tokens",
        "/clm//tokens",
        "/clm/tokens/",
        "/clm/./tokens",
        "/clm/x/../tokens",
        "/clm/%2e/tokens",
        "/clm/x/%2e%2e/tokens",
        "/clm%2ftokens",
        "/CLM/tokens",
        "/clm/tokens%00",
        "/clm/tokens;x=1",
        "/health/../clm/tokens",
        "/health%2f..%2fclm/tokens",
        "/clm/tokens?role=admin",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "TRACE", "get"])
def test_no_spelling_of_a_path_or_method_bypasses_the_role(
    spelling: str, method: str, client: Client
) -> None:
    answer = client(Role.OPERATOR).request(method, spelling)
    tells_methods = method == "OPTIONS" and (answer.status_code, answer.content) == (204, b"")
    assert tells_methods or answer.status_code in {400, 403, 404, 405}
    assert "digest" not in answer.text


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL"])
def test_no_header_changes_the_requested_path(header: str, client: Client) -> None:
    plain = client(None).get("/health").json()
    assert client(None).get("/health", headers={header: "/clm/tokens"}).json().keys() == plain.keys()


def test_health_is_ill_while_a_new_process_could_not_load_the_policy(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(tmp_path))
    assert client(None).get("/health").json()["parts"]["settings"] == "ok"
    (tmp_path / "clm.toml").write_text('[policy]\nfile = "gone.toml"\n')
    answer = client(None).get("/health")
    health = answer.json()
    assert (answer.status_code, health["status"], health["parts"]["settings"]) == (200, "ill", "down")
    assert str(tmp_path) not in answer.text


def test_health_is_ill_while_the_storage_does_not_answer(wired: Services) -> None:
    silent = StorageSettings(
        url="s3://bars",
        endpoint="http://127.0.0.1:9",
        access_key=SecretStr("key"),
        secret_key=SecretStr("secret"),
    )
    settings = wired.settings.model_copy(update={"storage": silent})
    health = TestClient(create_app(replace(wired, settings=settings))).get("/health").json()
    assert (health["status"], health["parts"]["storage"]) == ("ill", "down")


def test_a_route_outside_the_table_is_refused_when_the_application_is_created(wired: Services) -> None:
    app = create_app(wired)

    @app.get("/clm/backdoor")
    def backdoor() -> None: ...

    with pytest.raises(RuntimeError, match="/clm/backdoor"):
        require_policies(app)


def test_a_further_method_of_a_known_path_is_refused_as_well(wired: Services) -> None:
    app = create_app(wired)

    @app.put("/clm/tokens")
    def backdoor() -> None: ...

    with pytest.raises(RuntimeError, match=r"'PUT', '/clm/tokens'"):
        require_policies(app)


def test_no_write_is_open_to_viewers_and_reporters_send_reports_alone() -> None:
    needed = {(route.method, route.path): route.open_to for route in ROUTES}
    writes = {route.open_to for route in ROUTES if route.writes}
    assert writes == {Open.SIGNER, Open.BROWSER, Role.REPORTER, Role.OPERATOR, Role.ADMIN}
    assert [route for route, role in needed.items() if role is Role.REPORTER] == [
        ("POST", "/clm/allocation/{model_id}/served"),
        ("POST", "/clm/fills"),
    ]


@pytest.mark.parametrize(
    "host", ["evil.example", "testserver.evil.example", "testserver@evil.example", "", "testserver:80:80"]
)
def test_a_forged_host_is_refused(host: str, client: Client) -> None:
    answer = client(Role.ADMIN).get("/clm/status", headers={"Host": host})
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:clm:problem:bad-host")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_a_probe_is_answered_by_address_without_a_token(path: str, method: str, client: Client) -> None:
    answer = client(None).request(method, path, headers={"Host": "10.244.0.7:8000"})
    assert (answer.status_code, answer.text) == (200, '{"status":"ok"}' if method == "GET" else "")


def test_without_the_database_the_process_is_alive_and_not_ready(wired: Services) -> None:
    away = Ledger(create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none"))
    with_nothing = TestClient(create_app(replace(wired, ledger=away)))
    assert with_nothing.get("/livez").status_code == 200
    not_ready = with_nothing.get("/readyz")
    assert (not_ready.status_code, not_ready.json()) == (503, {"status": "down"})


@pytest.mark.parametrize("path", ["/health", "/clm/status", "/nothing", "/docs"])
def test_every_response_has_the_security_headers(path: str, client: Client) -> None:
    headers = client(None).get(path, headers={"Origin": "https://evil.example"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert len(headers["x-request-id"]) == 32
    assert not [name for name in headers if name.startswith("access-control")]


def test_the_description_has_every_documented_route(client: Client) -> None:
    described = client(None).get("/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path, methods in described.items() for method in methods} == {
        (route.method, route.path) for route in ROUTES if route.documented
    }


def test_the_page_of_the_description_needs_nothing_from_elsewhere(client: Client) -> None:
    page = client(None).get("/docs")
    assert "http" not in page.text.replace("http-equiv", "")
    assert "sha256-" in page.headers["content-security-policy"]
    for name in ("swagger-ui.js", "swagger-ui.css", "favicon.png"):
        assert client(None).get(f"/docs/{name}").status_code == 200
