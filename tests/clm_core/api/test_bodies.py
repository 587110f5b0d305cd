"""Bodies over a real connection: too large, too slow, compressed; and malformed request targets."""

import asyncio
import gzip
import time
from collections.abc import Callable

import pytest
from starlette.types import Message, Receive, Scope, Send

from clm_core.api.bodies import BodyLimits
from clm_core.domain.vocabulary import Role

SendBytes = Callable[..., tuple[int, bytes, float]]
MakeToken = Callable[..., str]
QUICKLY = 0.25
LIMIT = 1_048_576


@pytest.fixture(scope="module")
def operator(make_token: MakeToken) -> bytes:
    return make_token(Role.OPERATOR).encode()


@pytest.fixture(scope="module")
def head(operator: bytes) -> Callable[..., bytes]:
    """Function that returns the head of a request."""

    def make(*headers: bytes, line: bytes = b"POST /clm/promote HTTP/1.1") -> bytes:
        known = [b"Host: testserver", b"Authorization: Bearer " + operator, b"Content-Type: application/json"]
        return b"\r\n".join([line, *known, b"Connection: close", *headers, b"", b""])

    return make


def chunks(size: int) -> bytes:
    return b"%x\r\n" % size + b" " * size + b"\r\n"


BOMB = gzip.compress(b" " * 10_000_000)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        pytest.param([b"Content-Length: 1048577"], [b"{"], 413, id="announced-too-large"),
        pytest.param([b"Content-Length: " + b"9" * 15], [b"{"], 413, id="announced-endless"),
        pytest.param([b"Transfer-Encoding: chunked"], [chunks(LIMIT // 2)] * 3, 413, id="chunked-too-large"),
        pytest.param([b"Transfer-Encoding: chunked"], [b"zz\r\n{}"], 400, id="chunked-wrongly"),
        pytest.param(
            [b"Content-Encoding: gzip", b"Content-Length: %d" % len(BOMB)], [BOMB], 415, id="gzip-bomb"
        ),
        pytest.param([b"Content-Length: 2", b"Content-Length: 3"], [b"{}"], 400, id="two-lengths"),
        pytest.param([b"Content-Length: -1"], [b""], 400, id="negative-length"),
        pytest.param(
            [b"Content-Length: 2", b"Transfer-Encoding: chunked"],
            [b"0\r\n\r\nGET /clm/tokens HTTP/1.1\r\n\r\n"],
            400,
            id="smuggled",
        ),
    ],
)
def test_an_invalid_body_is_refused_at_once(
    headers: list[bytes], body: list[bytes], status: int, server: object, head: Callable[..., bytes]
) -> None:
    send: SendBytes = server.send  # type: ignore[attr-defined]
    got, answer, seconds = send(head(*headers), *body)
    assert got == status
    assert answer.count(b"HTTP/1.1 ") == 1
    assert seconds < QUICKLY


def test_a_slow_body_is_refused_after_the_time_limit(server: object, head: Callable[..., bytes]) -> None:
    send: SendBytes = server.send  # type: ignore[attr-defined]
    status, answer, seconds = send(head(b"Content-Length: 100"), *[b" "] * 20, pause=0.1)
    assert status == 408
    assert b"application/problem+json" in answer
    # the server allows 0.5 s and answers before the sender has finished
    assert seconds < 20 * 0.1 + 1


def test_a_body_that_arrives_while_the_server_is_busy_is_not_late() -> None:
    received = asyncio.run(received_after(busy_for=0.2, allowed=0.1))
    assert received == b"{}"


async def received_after(busy_for: float, allowed: float) -> bytes:
    """Body received by the application when the event loop is busy while the body arrives."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    received = list[bytes]()

    async def receive() -> Message:
        await arrived.wait()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def application(_: Scope, receive: Receive, __: Send) -> None:
        received.append((await receive())["body"])

    async def send(message: Message) -> None:
        received.append(str(message).encode())

    def be_busy() -> None:
        time.sleep(busy_for)
        # the event is handled in the same iteration as the timeout
        loop.call_soon(arrived.set)

    loop.call_soon(be_busy)
    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    await BodyLimits(application, max_bytes=1024, seconds=allowed)(scope, receive, send)
    return b"".join(received)


@pytest.mark.parametrize("kind", [b"text/plain", b"multipart/form-data", b"application/x-www-form"])
def test_content_types_of_cross_site_forms_are_refused(
    kind: bytes, server: object, head: Callable[..., bytes]
) -> None:
    send: SendBytes = server.send  # type: ignore[attr-defined]
    request = head(b"Content-Length: 2").replace(b"application/json", kind) + b"{}"
    assert send(request)[0] == 415


@pytest.mark.parametrize(
    "target",
    [
        b"//clm/tokens",
        b"///clm/tokens",
        b"/clm/../clm/tokens",
        b"/%2e/clm/tokens",
        b"/clm%2ftokens",
        b"/clm/%74okens",
        b"http://testserver/clm/tokens",
        b"/clm/tokens#x",
        b"/clm\\tokens",
        b"/clm/tokens%0d%0aX: y",
        b"*",
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"DELETE"])
def test_no_target_gets_an_operator_to_the_tokens(
    target: bytes, method: bytes, server: object, head: Callable[..., bytes]
) -> None:
    send: SendBytes = server.send  # type: ignore[attr-defined]
    status, answer, _ = send(head(line=b"%s %s HTTP/1.1" % (method, target)))
    assert status in {400, 403, 404, 405, 422}
    assert b"created_by" not in answer


@pytest.mark.parametrize(
    "host", [b"", b"evil.example", b"testserver\r\nHost: evil.example", b"evil.example:testserver"]
)
def test_a_forged_host_is_refused_on_the_wire(
    host: bytes, server: object, head: Callable[..., bytes]
) -> None:
    send: SendBytes = server.send  # type: ignore[attr-defined]
    request = head(line=b"GET /clm/jobs HTTP/1.1").replace(b"Host: testserver", b"Host: " + host)
    assert send(request)[0] == 400


def test_the_server_does_not_reveal_its_software(server: object, head: Callable[..., bytes]) -> None:
    send: SendBytes = server.send  # type: ignore[attr-defined]
    status, answer, _ = send(head(line=b"GET /health HTTP/1.1"))
    assert status == 200
    assert b"\r\nserver:" not in answer.lower()
    assert b"uvicorn" not in answer.lower()


def test_a_token_is_in_no_line_of_the_log(
    server: object, head: Callable[..., bytes], operator: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    send: SendBytes = server.send  # type: ignore[attr-defined]
    with caplog.at_level("INFO"):
        send(head(line=b"GET /clm/jobs?token=" + operator + b" HTTP/1.1"))
        send(head(line=b"GET /" + operator + b" HTTP/1.1"))
    secret = operator.decode().rpartition("_")[2]
    assert len(caplog.records) >= 2
    assert secret not in caplog.text
    assert operator.decode()[4:16] in caplog.text
