import logging
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from clm_core.api.errors import problem_of, status_of
from clm_core.domain import errors
from clm_core.domain.errors import CLMError
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]


def descendants(kind: type[CLMError]) -> Iterator[type[CLMError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        pytest.param("GET", "/nothing", None, 404, "/docs lists the paths", id="404"),
        pytest.param("PATCH", "/clm/jobs", None, 405, "the header Allow", id="405"),
        pytest.param("GET", "/clm/jobs?limit=0", None, 422, "query.limit", id="422-parameter"),
        pytest.param(
            "POST", "/clm/promote", {"model_id": "x"}, 422, "body.version: Field required", id="422-body"
        ),
        pytest.param("GET", "/clm/jobs/1", None, 422, "path.job_id", id="422-path"),
        pytest.param(
            "GET",
            "/clm/models/xgboost_a_1h/versions/v20200101_000000",
            None,
            404,
            "`clm models` lists the versions",
            id="404-ours",
        ),
    ],
)
def test_every_refusal_is_a_problem_document_with_the_next_step(
    method: str, path: str, body: object, status: int, words: str, client: Client
) -> None:
    answer = client(Role.OPERATOR).request(method, path, json=body)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status)
    assert words in problem["detail"]
    assert set(problem) >= {"type", "title", "status", "detail"}


def test_a_request_without_a_token_is_refused_with_the_scheme_bearer(client: Client) -> None:
    answer = client(None).get("/clm/jobs")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "clm tokens create" in answer.json()["detail"]


def test_a_refused_value_is_not_repeated(client: Client) -> None:
    answer = client(Role.OPERATOR).post("/clm/promote", json={"model_id": "S3CRET!", "version": "S3CRET"})
    assert "S3CRET" not in answer.text


@pytest.mark.parametrize("kind", sorted(descendants(CLMError), key=lambda kind: kind.__name__), ids=str)
def test_only_messages_about_internals_are_hidden(kind: type[CLMError]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, "postgres at 10.0.0.1: do this")
    if isinstance(error, errors.TooManyRequests | errors.PromotionRefused):
        error.__dict__.update(wait_seconds=1, reasons=())
    body = bytes(problem_of(error).body).decode()
    names_no_address = isinstance(error, errors.PrefectUnavailable)
    assert ("10.0.0.1" in body) is (status_of(error) < 500 or names_no_address)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(ZeroDivisionError("s3cret"), 500, id="bug"),
        pytest.param(OperationalError("SELECT s3cret", {}, Exception("s3cret")), 503, id="database"),
        pytest.param(PoolExhausted("s3cret"), 503, id="all connections in use"),
        pytest.param(errors.DatabaseUnavailable("s3cret"), 503, id="no database"),
    ],
)
def test_an_internal_error_reveals_no_internals(
    error: Exception,
    status: int,
    api: FastAPI,
    wired: Services,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(type(wired.ledger.tokens), "authenticate", lambda *_: fail(_))
    with caplog.at_level(logging.INFO, "clm.api"):
        answer = TestClient(api, raise_server_exceptions=False).get(
            "/clm/jobs", headers={"Authorization": "Bearer x"}
        )
    assert answer.status_code == status
    assert "s3cret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ("retry-after" in answer.headers) is (status == 503)
    if status == 500:
        assert answer.headers["x-request-id"] in answer.json()["instance"]
        assert answer.headers["x-request-id"] in caplog.text
