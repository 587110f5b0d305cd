"""Requests as MLflow's application receives them from the guard."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from patience import PATIENT_SECONDS
from starlette.types import Message, Receive, Scope, Send

from clm_core.domain.vocabulary import ModelStatus
from clm_core.platform.rate_limits import RateLimits
from clm_core.registry.server import guard
from clm_core.registry.server.guard import WITHHELD, Guard, Records
from clm_core.registry.server.logins import Logins
from clm_core.registry.serving_rights import LedgerRecord, LoadingAdvice

PASSWORD = "not-a-secret"
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
GET_VERSION = "/api/2.0/mlflow/registered-models/get"


@dataclass
class Recorder:
    """Application in the place of MLflow's: notes what arrives, and answers."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    answer: bytes = b"{}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = dict(scope["headers"])
        message: Message = await receive()
        self.body = message.get("body", b"")
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.answer})


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def ask(recorder: Recorder) -> Callable[..., httpx.Response]:
    """Sends a request through the guard, with the password."""
    tokens: Any = None  # the password alone is presented
    guarded = Guard(
        recorder,
        Logins(PASSWORD, tokens, RateLimits(10, 10), lambda: NOW),
        Records(
            lambda model_id, number: None,
            lambda digest: LoadingAdvice(),
            lambda model_id, number: LedgerRecord("", ModelStatus.PRODUCTION),
            lambda model_id: None,
            owners=tokens,
        ),
        present=lambda body: body,
        complete=lambda page: page.replace(b"REFERENCE", b"LIBRARY"),
        is_own_host=lambda host: True,
    )

    async def answer(method: str, path: str, headers: dict[str, str], **content: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=guarded)
        own = {"Authorization": f"Bearer {PASSWORD}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://mlflow", headers=own) as client:
            return await client.request(method, path, headers=headers, **content)

    def ask(method: str, path: str, headers: dict[str, str] | None = None, **content: Any) -> httpx.Response:
        pending = answer(method, path, headers or {}, **content)
        return asyncio.run(asyncio.wait_for(pending, PATIENT_SECONDS))

    return ask


Ask = Callable[..., httpx.Response]


def test_mlflow_receives_neither_credentials_nor_another_method(ask: Ask, recorder: Recorder) -> None:
    sent = {name.decode(): "DELETE" for name in WITHHELD - {b"authorization", b"content-length"}}
    answer = ask("GET", GET_VERSION, sent | {"x-kept": "1"}, params={"name": "m"})
    assert answer.status_code == httpx.codes.OK
    assert recorder.headers[b"x-kept"] == b"1"
    assert WITHHELD.isdisjoint(recorder.headers)


def test_mlflow_receives_no_body_of_a_get(ask: Ask, recorder: Recorder) -> None:
    # MLflow would read the body in the place of the query
    answer = ask("GET", GET_VERSION, params={"name": "m"}, json={"name": "another"})
    assert answer.status_code == httpx.codes.OK
    assert recorder.body == b""


@pytest.mark.parametrize("path", ["/get-artifact", "/model-versions/get-artifact"])
def test_a_page_of_the_reports_gets_its_chart_library_and_another_file_stays_as_it_is(
    ask: Ask, recorder: Recorder, path: str
) -> None:
    recorder.answer = b"<p>REFERENCE</p>"
    page = ask("GET", path, params={"path": "report/v1.html", "run_uuid": "r"})
    assert page.content == b"<p>LIBRARY</p>"
    assert page.headers["content-length"] == "14"
    assert ask("GET", path, params={"path": "report/v1.txt", "run_uuid": "r"}).content == recorder.answer


def test_a_body_that_does_not_arrive_is_refused_after_the_deadline(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b'{"experiment_ids": '
        await asyncio.Event().wait()

    monkeypatch.setattr(guard, "BODY_SECONDS", 0.1)
    answer = ask("POST", "/api/2.0/mlflow/runs/search", content=half())
    assert answer.status_code == httpx.codes.REQUEST_TIMEOUT
    assert "did not arrive within" in answer.json()["message"]
