"""Methods of every path: the header Allow, OPTIONS and HEAD."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from clm_core.api.route_table import ROUTES
from clm_core.domain.vocabulary import Role

Client = Callable[[Role | None], TestClient]
EXAMPLES = {
    "job_id": "00000000-0000-0000-0000-000000000001",
    "model_id": "xgboost_nosuchthing_1h",
    "version": "v20200101_000000",
    "token_id": "0" * 12,
    "source": "nobody",
    "run_id": "00000000-0000-0000-0000-000000000001",
    "symbol": "NOSUCHTHING",
    "timeframe": "1h",
    "study": "nosuchthing",
    "replay": "nosuchthing",
    "name": "nosuchthing",
}
ALLOWED = {
    "/clm/tokens": "GET, HEAD, OPTIONS, POST",
    "/clm/tokens/{token_id}": "DELETE, OPTIONS",
    "/clm/candidates": "GET, HEAD, OPTIONS, POST",
    "/clm/train": "OPTIONS, POST",
    "/clm/jobs/{job_id}/run": "OPTIONS, POST",
    "/clm/jobs/{job_id}/cancel": "OPTIONS, POST",
    "/clm/promote": "OPTIONS, POST",
    "/clm/rollback": "OPTIONS, POST",
    "/clm/halt": "OPTIONS, POST",
    "/clm/confirm": "OPTIONS, POST",
    "/clm/retire": "OPTIONS, POST",
    "/clm/watch": "OPTIONS, POST",
    "/clm/shadow": "OPTIONS, POST",
    "/clm/tune": "OPTIONS, POST",
    "/clm/evolve": "OPTIONS, POST",
    "/clm/evolve-strategies": "OPTIONS, POST",
    "/clm/replays": "GET, HEAD, OPTIONS, POST",
    "/clm/approvals/{model_id}": "OPTIONS, POST",
    "/clm/allocation/{model_id}": "DELETE, GET, HEAD, OPTIONS, POST",
    "/clm/allocation/{model_id}/served": "OPTIONS, POST",
    "/clm/fills": "OPTIONS, POST",
    "/webhooks/{source}": "OPTIONS, POST",
    "/login": "GET, HEAD, OPTIONS, POST",
    "/logout": "OPTIONS, POST",
    "/jobs/{job_id}/run": "OPTIONS, POST",
    "/jobs/{job_id}/cancel": "OPTIONS, POST",
    "/models/{model_id}/versions/{version}/promote": "OPTIONS, POST",
    "/models/{model_id}/versions/{version}/refuse": "OPTIONS, POST",
    "/clm/events": "GET, OPTIONS",
}
"""Value of Allow; `GET, HEAD, OPTIONS` for every other path."""
PATHS = sorted({route.path for route in ROUTES})
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY", "LOCK")


def allow(path: str) -> str:
    return ALLOWED.get(path, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", PATHS)
def test_a_method_that_a_path_lacks_is_refused_with_the_methods_that_it_has(
    path: str, method: str, client: Client
) -> None:
    if method in allow(path).split(", "):
        pytest.skip("the path has the method")
    answer = client(None).request(method, path.format(**EXAMPLES))
    assert (answer.status_code, answer.headers["allow"]) == (405, allow(path))
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("role", [None, Role.ADMIN], ids=str)
@pytest.mark.parametrize("path", PATHS)
def test_options_lists_the_methods_of_a_path(path: str, role: Role | None, client: Client) -> None:
    answer = client(role).options(path.format(**EXAMPLES))
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allow(path), b"")


@pytest.mark.parametrize("role", [None, Role.VIEWER, Role.ADMIN], ids=str)
@pytest.mark.parametrize("path", [path for path in PATHS if "HEAD" in allow(path)])
def test_head_is_get_without_the_body(path: str, role: Role | None, client: Client) -> None:
    head, get = (client(role).request(method, path.format(**EXAMPLES)) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"]


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_path_has_no_method(method: str, client: Client) -> None:
    answer = client(Role.ADMIN).request(method, "/clm/nothing")
    assert (answer.status_code, "allow" in answer.headers) == (404, False)


def test_head_over_a_connection_leaves_it_usable(server: object) -> None:
    line = b" /docs/swagger-ui.css HTTP/1.1\r\nHost: testserver\r\n"
    request = b"HEAD" + line + b"\r\n" + b"OPTIONS" + line + b"Connection: close\r\n\r\n"
    status, answer, _ = server.send(request)  # type: ignore[attr-defined]
    assert status == 200
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 204 No Content" in answer
