"""Requests to MLflow's server behind the guard, as sent by nobody, by every role, and by browsers."""

import contextlib
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import promoting
import pytest
from mlflow_servers import MLflowServer

from clm_core.domain.actors import Actor
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.platform import stack_state
from clm_core.services import Services

ADA = Actor(name="ada", role=Role.ADMIN)
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
API = "/api/2.0/mlflow"
Clients = Mapping[Role | None, httpx.Client]


def expected(role: Role | None) -> int:
    return httpx.codes.UNAUTHORIZED if role is None else httpx.codes.FORBIDDEN


def experiment_at(client: httpx.Client, location: Path) -> str:
    """Id of a run whose artifacts lie at a location of the attacker's choice."""
    body = {"name": uuid.uuid4().hex, "artifact_location": location.as_uri()}
    created = client.post(f"{API}/experiments/create", json=body).raise_for_status()
    # MLflow stores the files of a run in a folder of its own below the location
    run = client.post(f"{API}/runs/create", json={"experiment_id": created.json()["experiment_id"]})
    run_id: str = run.raise_for_status().json()["run"]["info"]["run_id"]
    return run_id


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Folder of mode 0700 with a file of mode 0600."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    (folder / "prefect.auth").write_text("clm:secret")
    (folder / "prefect.auth").chmod(0o600)
    return folder


def linked(tmp_path: Path, run: str, private: Path) -> None:
    """Link at the place of a run's artifacts to another folder."""
    (tmp_path / "open" / run).mkdir(parents=True)
    (tmp_path / "open" / run / "artifacts").symlink_to(private)


def read_private_file(client: httpx.Client, tmp_path: Path, private: Path) -> httpx.Response:
    run = experiment_at(client, tmp_path / "open")
    linked(tmp_path, run, private)
    return client.get("/get-artifact", params={"run_uuid": run, "path": "prefect.auth"})


def write_private_file(client: httpx.Client, tmp_path: Path, private: Path) -> httpx.Response:
    run = experiment_at(client, tmp_path / "open")
    linked(tmp_path, run, private)
    query = {"run_uuid": run, "path": "planted"}
    return client.post("/ajax-api/2.0/mlflow/upload-artifact", params=query, content=b"planted")


def test_mlflow_alone_reads_and_writes_the_files_of_its_user_for_everybody(
    alone: MLflowServer, tmp_path: Path, private: Path
) -> None:
    with alone.client() as client:
        assert read_private_file(client, tmp_path, private).text == "clm:secret"
        assert write_private_file(client, tmp_path, private).status_code == httpx.codes.OK
    assert (private / "planted").read_bytes() == b"planted"


@pytest.mark.parametrize("role", [None, *Role])
@pytest.mark.parametrize("attack", [read_private_file, write_private_file])
def test_nobody_chooses_a_location_of_artifacts(
    role: Role | None, attack: Callable[..., httpx.Response], clients: Clients, tmp_path: Path, private: Path
) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        attack(clients[role], tmp_path, private)
    # an operator creates experiments, in a place that CLM chooses
    allowed = role is not None and role.includes(Role.OPERATOR)
    assert refused.value.response.status_code == (httpx.codes.BAD_REQUEST if allowed else expected(role))
    assert [path.name for path in private.iterdir()] == ["prefect.auth"]


def test_a_run_with_a_location_from_before_the_lock_shows_no_file_outside(
    alone: MLflowServer, clients: Clients, tmp_path: Path, private: Path
) -> None:
    with alone.client() as client:
        run = experiment_at(client, tmp_path / "open")
    linked(tmp_path, run, private)
    for path, query in (
        ("/get-artifact", {"run_uuid": run, "path": "prefect.auth"}),
        (f"{API}/artifacts/list", {"run_id": run}),
    ):
        answer = clients[Role.ADMIN].get(path, params=query)
        assert answer.status_code == httpx.codes.FORBIDDEN
        assert "outside the folder" in answer.text


def moved_alias(client: httpx.Client, failed: ModelVersion) -> httpx.Response:
    alias = {"name": failed.model_id, "alias": "production", "version": str(failed.mlflow_version)}
    return client.post(f"{API}/registered-models/alias", json=alias)


def deleted_model(client: httpx.Client, model_id: str) -> httpx.Response:
    return client.request("DELETE", f"{API}/registered-models/delete", json={"name": model_id})


def test_mlflow_alone_moves_the_alias_and_deletes_the_model_for_everybody(
    alone: MLflowServer, services: Services, make_version: Callable[..., ModelVersion], model_id: str
) -> None:
    failed = make_version(model_id, sharpe=-1.0)
    with alone.client() as client:
        assert moved_alias(client, failed).status_code == httpx.codes.OK
        assert services.registry.aliased(model_id, "production") == failed.mlflow_version
        assert deleted_model(client, model_id).status_code == httpx.codes.OK
    assert not services.registry.holds(model_id, failed.mlflow_version, failed.mlflow_run_id)


@pytest.fixture(scope="module")
def version(services: Services, make_version: Callable[..., ModelVersion]) -> ModelVersion:
    """Production version of a model."""
    made = make_version("lightgbm_guarded_1h")
    promoting.promote(services, made.model_id, made.version, ADA, "", NOW)
    return made


WRITES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "registered-models/create", {"name": "mine"}),
    ("POST", "registered-models/rename", {"name": "MODEL", "new_name": "other"}),
    ("DELETE", "registered-models/delete", {"name": "MODEL"}),
    ("POST", "registered-models/alias", {"name": "MODEL", "alias": "production", "version": "1"}),
    ("DELETE", "registered-models/alias", {"name": "MODEL", "alias": "production"}),
    ("POST", "model-versions/create", {"name": "MODEL", "source": "file:///etc"}),
    ("POST", "model-versions/create", {"name": "MODEL", "source": "mlflow-artifacts:/1"}),
    ("DELETE", "model-versions/delete", {"name": "MODEL", "version": "1"}),
    ("POST", "model-versions/transition-stage", {"name": "MODEL", "version": "1", "stage": "Production"}),
    ("POST", "model-versions/set-tag", {"name": "MODEL", "version": "1", "key": "clm.status", "value": "x"}),
    ("DELETE", "model-versions/delete-tag", {"name": "MODEL", "version": "1", "key": "clm.package"}),
    ("POST", "logged-models", {"experiment_id": "1", "name": "mine"}),
    ("POST", "webhooks", {"name": "w", "url": "http://127.0.0.1:1", "events": []}),
    ("POST", "gateway-proxy", {"gateway_path": "x"}),
    ("POST", "artifacts/presigned-upload-url", {}),
]


@pytest.mark.parametrize("role", [None, *Role])
@pytest.mark.parametrize(("method", "path", "body"), WRITES, ids=[f"{w[0]} {w[1]}" for w in WRITES])
@pytest.mark.parametrize("prefix", ["/api", "/ajax-api"])
def test_the_registry_is_changed_by_clm_alone(
    prefix: str,
    method: str,
    path: str,
    body: dict[str, Any],
    role: Role | None,
    clients: Clients,
    version: ModelVersion,
    services: Services,
) -> None:
    named = {key: version.model_id if value == "MODEL" else value for key, value in body.items()}
    answer = clients[role].request(method, f"{prefix}/2.0/mlflow/{path}", json=named)
    assert answer.status_code == expected(role), answer.text
    assert answer.json()["message"]
    assert services.registry.aliased(version.model_id, "production") == version.mlflow_version


UPLOADS = [
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/x"),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/1"),
    ("POST", "/api/2.0/mlflow-artifacts/mpu/create/1/x"),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=x&path=y"),
    ("POST", "/v1/traces"),
    ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
    ("POST", "/ajax-api/3.0/jobs/"),
    ("POST", "/gateway/x/mlflow/invocations"),
    ("GET", "/build/index.html"),
    ("TRACE", "/"),
    ("OPTIONS", "/api/2.0/mlflow/registered-models/delete"),
    ("HEAD", "/api/2.0/mlflow/registered-models/alias?name=x&alias=production"),
]


@pytest.mark.parametrize("role", [None, *Role])
@pytest.mark.parametrize(("method", "path"), UPLOADS)
def test_uploads_and_other_services_are_refused(
    method: str, path: str, role: Role | None, clients: Clients
) -> None:
    assert clients[role].request(method, path, content=b"x").status_code == expected(role)


SPELLINGS = [
    "//api/2.0/mlflow/registered-models/search",
    "/api/2.0/mlflow//registered-models/search",
    "/api/2.0/mlflow/registered-models/search/",
    "/api/2.0/mlflow/./registered-models/search",
    "/x/../api/2.0/mlflow/registered-models/search",
    "/%2e/api/2.0/mlflow/registered-models/search",
    "/api/2.0/mlflow/registered-models/search;x",
    "/api/2.0/mlflow/registered-models/search%00",
    "/api/2.0/mlflow/registered-models/search%2f",
    "/api/2.0/mlflow/registered-models%5csearch",
    "/API/2.0/mlflow/registered-models/search",
    "/health/../api/2.0/mlflow/registered-models/search",
    "/health/%2e%2e/api/2.0/mlflow/registered-models/search",
    "/health;/api/2.0/mlflow/registered-models/search",
    "/clm/login/../../api/2.0/mlflow/registered-models/search",
    "http://127.0.0.1/api/2.0/mlflow/registered-models/search",
]


@pytest.mark.parametrize("role", [None, Role.VIEWER])
@pytest.mark.parametrize("target", SPELLINGS)
def test_no_other_spelling_of_a_path_is_answered(
    target: str, role: Role | None, guarded: MLflowServer, tokens: Mapping[Role, str]
) -> None:
    bearer = f"Authorization: Bearer {tokens[role]}\r\n" if role else ""
    status = raw(guarded, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{guarded.port}\r\n{bearer}")
    assert status in {expected(role), httpx.codes.BAD_REQUEST}


def test_an_encoded_letter_of_a_path_is_judged_as_the_letter(
    guarded: MLflowServer, tokens: Mapping[Role, str]
) -> None:
    path = "/api/2.0/mlflow/registered-models/%64elete"
    head = f"DELETE {path} HTTP/1.1\r\nHost: 127.0.0.1:{guarded.port}\r\n"
    assert raw(guarded, head) == httpx.codes.UNAUTHORIZED
    assert raw(guarded, f"{head}Authorization: Bearer {tokens[Role.ADMIN]}\r\n") == httpx.codes.FORBIDDEN


def raw(server: MLflowServer, head: str) -> int:
    """Status of the answer to a request that no client would send."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        answer = connection.makefile("rb").readline()
    return int(answer.split()[1])


def test_a_websocket_is_refused(guarded: MLflowServer) -> None:
    head = (
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{guarded.port}\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=120) as connection:
        connection.sendall(f"{head}Connection: Upgrade\r\n\r\n".encode())
        status = int(connection.makefile("rb").readline().split()[1])
    assert status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_no_header_changes_the_method(
    name: str, clients: Clients, version: ModelVersion, services: Services
) -> None:
    answer = clients[Role.VIEWER].request(
        "GET",
        f"{API}/registered-models/get",
        params={"name": version.model_id},
        headers={name: "DELETE"},
    )
    assert answer.status_code == httpx.codes.OK
    assert services.registry.holds(version.model_id, version.mlflow_version, version.mlflow_run_id)


def test_another_host_name_is_refused(clients: Clients) -> None:
    for path in ("/", "/clm/login", f"{API}/experiments/search"):
        answer = clients[Role.ADMIN].get(path, headers={"Host": "evil.example"})
        assert answer.status_code == httpx.codes.FORBIDDEN


def test_health_and_version_are_open(clients: Clients) -> None:
    assert clients[None].get("/health").text == "OK"
    assert clients[None].get("/version").text[0].isdigit()


def test_a_reporter_reads_nothing(clients: Clients, version: ModelVersion) -> None:
    params = {"name": version.model_id}
    answer = clients[Role.REPORTER].get(f"{API}/registered-models/get", params=params)
    assert answer.status_code == httpx.codes.FORBIDDEN
    assert version.model_id not in answer.text


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
def test_every_role_of_people_reads(role: Role, clients: Clients, version: ModelVersion) -> None:
    client = clients[role]
    name = version.model_id
    response = client.get(f"{API}/registered-models/get", params={"name": name}).raise_for_status()
    assert response.json()["registered_model"]["name"] == name
    runs = client.post("/ajax-api/2.0/mlflow/runs/search", json={"experiment_ids": ["1"], "max_results": 1})
    assert runs.raise_for_status().json()["runs"]
    fields = (
        f'mlflowGetRun(input: {{runId: "{version.mlflow_run_id}"}}) {{ run {{ info {{ artifactUri }} }} }}'
    )
    query = {"query": f'query GetRun @component(name: "x") {{ {fields} }}'}
    answer = client.post("/graphql", json=query).raise_for_status().json()
    assert answer["data"]["mlflowGetRun"]["run"]["info"]["artifactUri"].startswith("mlflow-artifacts:/")


@pytest.mark.parametrize("role", list(Role))
def test_notes_and_tags_are_for_operators(
    role: Role, clients: Clients, version: ModelVersion, services: Services
) -> None:
    of_version = {"name": version.model_id, "version": str(version.mlflow_version)}
    tag = of_version | {"key": "clm.retrain", "value": role.value}
    note = of_version | {"description": f"seen by {role}"}
    answers = {
        clients[role].post(f"{API}/model-versions/set-tag", json=tag).status_code,
        clients[role].patch(f"{API}/model-versions/update", json=note).status_code,
        clients[role]
        .request("DELETE", f"{API}/model-versions/delete-tag", json=of_version | {"key": "x"})
        .status_code,
    }
    assert answers == {httpx.codes.OK if role.includes(Role.OPERATOR) else httpx.codes.FORBIDDEN}


def test_an_operator_tracks_experiments_of_his_own_inside_the_folder(
    clients: Clients, services: Services
) -> None:
    client = clients[Role.OPERATOR]
    body = {"name": f"research {uuid.uuid4()}", "tags": []}
    created = client.post(f"{API}/experiments/create", json=body).raise_for_status().json()
    run = client.post(f"{API}/runs/create", json=created).raise_for_status().json()["run"]["info"]
    assert run["artifact_uri"].startswith("mlflow-artifacts:/")
    metric = {"run_id": run["run_id"], "key": "loss", "value": 1.0, "timestamp": 0}
    client.post(f"{API}/runs/log-metric", json=metric).raise_for_status()
    run_id = clients[Role.VIEWER].get(f"{API}/runs/get", params={"run_id": run["run_id"]}).json()
    assert run_id["run"]["data"]["metrics"][0]["value"] == 1.0


def test_the_alias_is_asked_for_in_one_way(clients: Clients, version: ModelVersion) -> None:
    client = clients[Role.VIEWER]
    path = f"{API}/registered-models/alias"
    named = {"name": version.model_id, "alias": "production"}
    assert client.get(path, params=named).status_code == httpx.codes.OK
    label = {"name": version.model_id, "alias": version.version}
    twice = [("name", version.model_id), ("alias", version.version), ("alias", "production")]
    for query in (twice, named | {"x": "y"}, {"name": version.model_id}):
        assert client.get(path, params=query).status_code == httpx.codes.BAD_REQUEST  # type: ignore[arg-type]
    # MLflow would read the names from the body of a request without a query
    assert client.request("GET", path, json=named).status_code == httpx.codes.BAD_REQUEST
    assert client.request("GET", path, params=label, json=named).status_code == httpx.codes.OK


def test_a_moved_alias_is_answered_with_the_command_that_puts_it_back(
    clients: Clients, services: Services, make_version: Callable[..., ModelVersion], model_id: str
) -> None:
    good = make_version(model_id)
    failed = make_version(model_id, sharpe=-1.0)
    promoting.promote(services, model_id, good.version, ADA, "", NOW)
    query = {"name": model_id, "alias": "production"}
    services.registry.point(model_id, "production", failed.mlflow_version)
    for prefix in ("/api", "/ajax-api"):
        answer = clients[Role.VIEWER].get(f"{prefix}/2.0/mlflow/registered-models/alias", params=query)
        assert answer.status_code == httpx.codes.CONFLICT
        assert answer.json()["error_code"] == "RESOURCE_CONFLICT"
        assert f"{failed.version} is failed" in answer.json()["message"]
        assert "clm reconcile" in answer.json()["message"]
    by_label = clients[Role.VIEWER].get(
        f"{API}/registered-models/alias", params=query | {"alias": failed.version}
    )
    assert by_label.status_code == httpx.codes.OK
    services.promotions.reconcile(model_id, ADA, NOW)
    answer = clients[Role.VIEWER].get(f"{API}/registered-models/alias", params=query)
    assert answer.json()["model_version"]["version"] == str(good.mlflow_version)


def test_artifacts_are_listed_and_read_through_the_server(
    clients: Clients, version: ModelVersion, services: Services
) -> None:
    client = clients[Role.VIEWER]
    named = {"name": version.model_id, "version": str(version.mlflow_version)}
    located = client.get(f"{API}/model-versions/get-download-uri", params=named).json()["artifact_uri"]
    assert located.startswith("mlflow-artifacts:/")
    path = located.removeprefix("mlflow-artifacts:/").lstrip("/")
    listed = client.get("/api/2.0/mlflow-artifacts/artifacts", params={"path": path}).json()["files"]
    assert {"MLmodel", "artifacts", "serving.py"} <= {entry["path"] for entry in listed}
    served = client.get(f"/api/2.0/mlflow-artifacts/artifacts/{path}/MLmodel")
    stored = services.settings.home / "mlflow" / "artifacts" / path / "MLmodel"
    assert served.content == stored.read_bytes()


def test_a_body_that_is_too_long_is_refused(clients: Clients) -> None:
    answer = clients[Role.VIEWER].post(f"{API}/runs/search", content=b" " * 2_000_000)
    assert answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE


PAGE = {"Accept": "text/html"}


@contextlib.contextmanager
def browser_of(guarded: MLflowServer, secret: str) -> Iterator[httpx.Client]:
    with guarded.client() as client:
        log_in(client, guarded, secret)
        yield client


def log_in(client: httpx.Client, guarded: MLflowServer, secret: str) -> None:
    own = {"Origin": guarded.url, "Sec-Fetch-Site": "same-origin"}
    answer = client.post("/clm/login?next=%2Fget-artifact%3Fpath%3Dx", data={"secret": secret}, headers=own)
    assert answer.status_code == httpx.codes.SEE_OTHER, answer.text
    assert answer.headers["location"] == "/get-artifact?path=x"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"clm_mlflow_{guarded.port}=")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}


def test_a_page_without_a_session_leads_to_the_login(clients: Clients) -> None:
    answer = clients[None].get("/get-artifact?run_uuid=a&path=b", headers=PAGE)
    assert answer.status_code == httpx.codes.SEE_OTHER
    assert answer.headers["location"] == "/clm/login?next=%2Fget-artifact%3Frun_uuid%3Da%26path%3Db"
    page = clients[None].get(answer.headers["location"], headers=PAGE)
    assert "Password or token" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil"])
def test_a_login_leads_to_a_page_of_this_server_alone(
    target: str, guarded: MLflowServer, tokens: Mapping[Role, str]
) -> None:
    with guarded.client() as client:
        answer = client.post(
            "/clm/login",
            params={"next": target},
            data={"secret": tokens[Role.VIEWER]},
            headers={"Origin": guarded.url},
        )
    assert answer.headers["location"] == "/"


def test_a_wrong_secret_is_refused_on_the_page(clients: Clients, guarded: MLflowServer) -> None:
    answer = clients[None].post("/clm/login", data={"secret": "<b>wrong"}, headers={"Origin": guarded.url})
    assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert 'role="alert"' in answer.text
    assert "The password or token is wrong" in answer.text
    assert "set-cookie" not in answer.headers


def test_the_file_with_prefects_password_opens_mlflow(guarded: MLflowServer, services: Services) -> None:
    secret = stack_state.prefect_auth(services.settings.home)
    with browser_of(guarded, secret) as browser:
        assert "<title>MLflow</title>" in browser.get("/", headers=PAGE).text
    user, _, password = secret.partition(":")
    with guarded.client(auth=(user, password)) as client:
        assert client.get(f"{API}/experiments/search?max_results=1").status_code == httpx.codes.OK


def test_a_browser_writes_from_pages_of_this_server_alone(
    guarded: MLflowServer, tokens: Mapping[Role, str], version: ModelVersion
) -> None:
    tag = {"name": version.model_id, "key": "desk", "value": "rates"}
    path = "/ajax-api/2.0/mlflow/registered-models/set-tag"
    with browser_of(guarded, tokens[Role.OPERATOR]) as browser:
        for headers in (
            {},
            {"Origin": "http://evil.example"},
            {"Origin": f"http://127.0.0.1:{guarded.port + 1}"},
            {"Origin": "null"},
            {"Origin": guarded.url, "Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            answer = browser.post(path, json=tag, headers=headers)
            assert answer.status_code == httpx.codes.FORBIDDEN, headers
        for headers in ({"Origin": guarded.url}, {"Sec-Fetch-Site": "same-origin"}):
            assert browser.post(path, json=tag, headers=headers).status_code == httpx.codes.OK
    with browser_of(guarded, tokens[Role.VIEWER]) as browser:
        answer = browser.post(path, json=tag, headers={"Origin": guarded.url})
        assert answer.status_code == httpx.codes.FORBIDDEN


def test_a_revoked_token_ends_its_session_and_a_logout_the_cookie(
    guarded: MLflowServer, services: Services, issue: Callable[[], str]
) -> None:
    secret = issue()
    with browser_of(guarded, secret) as browser:
        path = f"{API}/experiments/search?max_results=1"
        assert browser.get(path).status_code == httpx.codes.OK
        services.ledger.tokens.revoke(secret[4:16], ADA, services.clock())
        assert browser.get(path).status_code == httpx.codes.UNAUTHORIZED
        assert "Log out" in browser.get("/clm/logout", headers=PAGE).text
        out = browser.post("/clm/logout", headers={"Origin": guarded.url})
        assert f'clm_mlflow_{guarded.port}=""' in out.headers["set-cookie"]


def test_every_answer_of_mlflow_without_a_credential_is_an_error_that_says_what_to_do(
    clients: Clients,
) -> None:
    answer = clients[None].get(f"{API}/experiments/search")
    assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert "MLFLOW_TRACKING_TOKEN" in answer.json()["message"]
    assert answer.headers["www-authenticate"].startswith("Bearer")
