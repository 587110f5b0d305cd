"""Clients that are slow in each phase of a connection, and more clients than the server has room for."""

import asyncio
import contextlib
import json
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import promoting
import pytest
from patience import PATIENT_SECONDS
from sqlalchemy import create_engine, text
from starlette.types import Message, Receive, Scope, Send
from webhooks import signed

from clm_core.api import admission
from clm_core.api.admission import Admission, Lane
from clm_core.domain.actors import Actor
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.ledger import triggers
from clm_core.services import Services

Serve = Callable[[Services], AbstractContextManager[Any]]
Connect = Callable[..., socket.socket]
MakeToken = Callable[..., str]
MakeVersion = Callable[..., ModelVersion]
OPERATOR = Actor(name="ada", role=Role.OPERATOR)
HEAD = b"GET /health HTTP/1.1\r\nHost: testserver\r\n"
PLACES = 20
"""Requests other than health and webhooks that are answered at a time."""


def with_limits(clm: Services, **limits: float) -> Services:
    api = clm.settings.api.model_copy(update=limits)
    return replace(clm, settings=clm.settings.model_copy(update={"api": api}))


@pytest.fixture(scope="module")
def impatient(serve: Serve, wired: Services) -> Iterator[Any]:
    """Server with short deadlines, each different."""
    limits = {"head_seconds": 0.5, "idle_seconds": 1, "write_seconds": 1.5}
    with serve(with_limits(wired, **limits)) as server:
        yield server


@pytest.fixture
def connect() -> Iterator[Callable[..., socket.socket]]:
    with contextlib.ExitStack() as opened:

        def to(server: Any, receive_buffer: int | None = None) -> socket.socket:
            connection = opened.enter_context(socket.socket())
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.settimeout(PATIENT_SECONDS)
            connection.connect(("127.0.0.1", server.port))
            return connection

        yield to


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    answer = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            answer += piece
    return bytes(answer)


def test_half_a_request_head_is_refused_after_the_deadline(impatient: Any, connect: Connect) -> None:
    connection = connect(impatient)
    connection.sendall(HEAD)
    head, _, body = received(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == 408


def test_a_head_that_arrives_byte_by_byte_does_not_prolong_its_deadline(
    impatient: Any, connect: Connect
) -> None:
    connection = connect(impatient)
    sent = 0
    deadline = time.monotonic() + PATIENT_SECONDS
    connection.sendall(HEAD)
    with contextlib.suppress(ConnectionError):
        while not select.select([connection], [], [], 0.1)[0]:
            connection.sendall(b"X")
            sent += 1
            assert time.monotonic() < deadline
    assert received(connection).startswith(b"HTTP/1.1 408 ")
    assert sent > 0


def test_a_connection_without_a_byte_is_closed_after_the_deadline(impatient: Any, connect: Connect) -> None:
    assert received(connect(impatient)) == b""


def test_a_connection_is_closed_after_it_has_been_idle(impatient: Any, connect: Connect) -> None:
    connection = connect(impatient)
    connection.sendall(HEAD + b"\r\n")
    assert received(connection).count(b"HTTP/1.1 200 ") == 1


def test_the_head_of_a_second_request_has_a_deadline_too(impatient: Any, connect: Connect) -> None:
    connection = connect(impatient)
    connection.sendall(HEAD + b"\r\n" + HEAD)
    answer = received(connection)
    assert answer.count(b"HTTP/1.1 200 ") == 1


def test_a_body_that_goes_on_after_the_response_has_a_deadline(impatient: Any, connect: Connect) -> None:
    connection = connect(impatient)
    connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
    deadline = time.monotonic() + PATIENT_SECONDS
    with contextlib.suppress(ConnectionError):
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)
            assert time.monotonic() < deadline


def test_a_client_that_takes_no_response_is_reset_after_the_deadline(
    impatient: Any, connect: Connect
) -> None:
    connection = connect(impatient, receive_buffer=4096)
    request = b"GET /docs/swagger-ui.js HTTP/1.1\r\nHost: testserver\r\n\r\n"
    # more than the buffers of the system hold
    connection.sendall(request * 20)
    waiting = select.poll()
    waiting.register(connection, select.POLLHUP | select.POLLERR)
    assert waiting.poll(PATIENT_SECONDS * 1000)


def test_a_stream_of_events_outlasts_every_deadline(
    impatient: Any, make_token: MakeToken, make_version: MakeVersion, model_id: str, services: Services
) -> None:
    version = make_version(model_id)
    headers = {"Authorization": f"Bearer {make_token(Role.VIEWER)}", "Host": "testserver"}
    with httpx.stream("GET", f"{impatient.url}/clm/events", headers=headers, timeout=PATIENT_SECONDS) as live:
        lines = live.iter_lines()
        assert next(lines) == ": connected"
        # longer than all deadlines together
        time.sleep(3.5)
        promoting.promote(services, model_id, version.version, OPERATOR, "", services.clock())
        assert any(version.version in line for line in lines)


def test_health_answers_while_twice_as_many_half_open_heads_as_connections_arrive(
    serve: Serve, wired: Services, connect: Connect
) -> None:
    clm = with_limits(wired, head_seconds=60.0, max_connections=60)
    with serve(clm) as server, httpx.Client(base_url=server.url, headers={"Host": "testserver"}) as client:
        answers = list[int]()
        for count in range(120):
            connect(server).sendall(HEAD)
            if count % 10 == 9:
                answers.append(client.get("/health", timeout=PATIENT_SECONDS).status_code)
    assert answers == [200] * 12


def test_a_new_connection_ends_the_one_that_has_waited_longest(
    serve: Serve, wired: Services, connect: Connect
) -> None:
    clm = with_limits(wired, head_seconds=60.0, max_connections=3)
    with serve(clm) as server:
        half_open = [connect(server) for _ in range(4)]
        assert received(half_open[0]) == b""
        half_open[3].sendall(HEAD + b"Connection: close\r\n\r\n")
        assert received(half_open[3]).startswith(b"HTTP/1.1 200 ")


def test_health_and_webhooks_answer_while_every_other_place_is_taken(
    serve: Serve, wired: Services, make_token: MakeToken
) -> None:
    clm = with_limits(wired, body_seconds=60.0)
    operator = {"Authorization": f"Bearer {make_token(Role.OPERATOR)}", "Host": "testserver"}
    retrain = {"model_type": "lightgbm", "symbol": "BTCUSD", "training_params": {"rounds": 2}}
    data = {"model_type": "xgboost", "symbol": "NOSUCHTHING", "detector": "psi"}
    body = json.dumps({"type": "model.drift_detected", "data": data})
    secret = clm.settings.webhooks["monitor"].secrets[0].get_secret_value()
    statuses = list[int]()
    with serve(clm) as server, httpx.Client(base_url=server.url, timeout=PATIENT_SECONDS) as client:

        def train() -> None:
            statuses.append(client.post("/clm/train", json=retrain, headers=operator).status_code)

        threads = [threading.Thread(target=train) for _ in range(PLACES)]
        with clm.ledger.triggers.transaction() as connection:
            # every request waits for the lock of the intake
            triggers.lock(connection)
            for thread in threads:
                thread.start()
            wait_until_blocked(clm, PLACES)
            health = client.get("/health", headers={"Host": "testserver"})
            named = signed(secret, uuid.uuid4().hex, body, datetime.now(UTC))
            message = client.post("/webhooks/monitor", content=body, headers=named | {"Host": "testserver"})
            assert not statuses
        for thread in threads:
            thread.join()
    assert (health.status_code, message.status_code) == (200, 202)
    assert set(statuses) <= {202, 409}


def wait_until_blocked(clm: Services, count: int) -> None:
    """Wait until so many transactions wait for an advisory lock."""
    engine = create_engine(clm.database.url("ledger"))
    deadline = time.monotonic() + PATIENT_SECONDS
    blocked = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    while True:
        with engine.connect() as connection:
            if connection.scalar(blocked) >= count:
                break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    engine.dispose()


def test_a_request_beyond_the_waiting_ones_is_refused_at_once() -> None:
    async def scenario() -> list[bool]:
        lane = Lane(running=1, waiting=1)
        first = await lane.enter()
        second = asyncio.create_task(lane.enter())
        await asyncio.sleep(0)
        third = await lane.enter()
        lane.leave()
        return [first, await second, third]

    assert asyncio.run(scenario()) == [True, True, False]


def test_a_request_that_waits_too_long_for_a_place_is_answered_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "WAIT_SECONDS", 0.05)
    assert asyncio.run(statuses_of(PLACES + 1, begins=False))[-1] == 503


def test_a_response_that_has_begun_needs_no_place() -> None:
    assert asyncio.run(statuses_of(PLACES * 2, begins=True)) == [200] * PLACES * 2


async def statuses_of(count: int, begins: bool) -> list[int]:
    """Statuses of requests at once that never end, with or without the begin of a response."""
    sent = list[int]()
    all_begun = asyncio.Event()

    async def application(_: Scope, __: Receive, send: Send) -> None:
        if begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await all_begun.wait()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])
        if len(sent) == (count if begins else count - PLACES):
            all_begun.set()

    admitted = Admission(application)
    scope = {"type": "http", "method": "GET", "path": "/clm/status", "headers": []}
    await asyncio.wait_for(
        asyncio.gather(*(admitted(scope, receive, send) for _ in range(count))), PATIENT_SECONDS
    )
    return sent
