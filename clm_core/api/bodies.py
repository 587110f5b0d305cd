"""Bodies as they come over the wire: limited in size, time and coding before anything reads them, then
parsed as JSON that means the same to everybody."""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clm_core.api.errors import problem

DEEPEST = 32
LARGEST = 2**53
"""Beyond it, not every reader of JSON gets the same number."""


class BodyLimits:
    """Reads a body whole before the application is called, or refuses it."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app, self._max_bytes, self._seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(Headers(scope=scope), receive)
        except HTTPException as refused:
            answer = problem(refused.status_code, refused.detail, headers={"Connection": "close"})
            await answer(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        if headers.get("content-encoding") is not None:
            raise HTTPException(415, "Send the body as it is, without Content-Encoding.")
        if "content-length" in headers and "transfer-encoding" in headers:
            # a proxy before us might believe the other one
            raise HTTPException(400, "Send Content-Length or Transfer-Encoding, not both.")
        announced = headers.get("content-length", "0")
        # digits that go on for ever are a large number too
        if announced.isdecimal() and (len(announced) > 18 or int(announced) > self._max_bytes):
            raise self._too_large()
        body = await self._collect(receive)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and not (kind == "application/json" or kind.endswith("+json")):
            raise HTTPException(415, "Send JSON, with Content-Type: application/json.")
        return body

    async def _collect(self, receive: Receive) -> bytes:
        body, more = bytearray(), True
        deadline = asyncio.get_running_loop().time() + self._seconds
        while more:
            message = await self._next(receive, deadline)
            if message["type"] == "http.disconnect":
                raise HTTPException(400, "The body ended early: send it again, whole.")
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise self._too_large()
            more = message.get("more_body", False)
        return bytes(body)

    async def _next(self, receive: Receive, deadline: float) -> Message:
        try:
            async with asyncio.timeout_at(deadline):
                return await receive()
        except TimeoutError:
            return await self._arrived(receive)

    async def _arrived(self, receive: Receive) -> Message:
        """What lies here by now: when we were too busy to look, the sender was not too slow."""
        try:
            async with asyncio.timeout(0):
                return await receive()
        except TimeoutError:
            raise HTTPException(
                408, f"The body has to arrive within {self._seconds:g} s: send it again, at once."
            ) from None

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"The body may have {self._max_bytes} bytes: send less.")


class StrictRoute(APIRoute):
    """A route whose JSON has one meaning only."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())


def parse_json(body: bytes) -> Any:
    """JSON in UTF-8 that every reader understands alike.

    Raises:
        HTTPException: it is none, names a key twice, holds NaN or infinity, a whole number beyond 2^53, text
            that is no Unicode, or lists and objects nested deeper than 32.
    """
    try:
        parsed = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_number,
        )
        _require_plain(parsed)
    except RecursionError:
        raise _bad(f"it is nested deeper than {DEEPEST}") from None
    except UnicodeError:
        raise _bad("it is not UTF-8") from None
    except ValueError as error:
        raise _bad(str(error)) from None
    return parsed


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it names a key twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > LARGEST:
        raise ValueError("a whole number in it is beyond 2^53")
    return int(digits)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number in it is not finite")
    return number


def _require_plain(parsed: Any) -> None:
    level, depth = [parsed], 0
    while level:
        if depth >= DEEPEST and any(isinstance(found, dict | list) for found in level):
            raise ValueError(f"it is nested deeper than {DEEPEST}")
        _require_text(level)
        level, depth = [item for found in level for item in _inside(found)], depth + 1


def _require_text(level: list[Any]) -> None:
    """Also of keys; a lone surrogate in one, written as \\ud800, is no text."""
    keys = [key for found in level if isinstance(found, dict) for key in found]
    for text in [*keys, *(found for found in level if isinstance(found, str))]:
        text.encode()
        if "\0" in text:
            raise ValueError("a text in it holds the character NUL, which cannot be stored")


def _inside(found: Any) -> list[Any]:
    if isinstance(found, dict):
        return list(found.values())
    return found if isinstance(found, list) else []


def _bad(why: str) -> HTTPException:
    return HTTPException(400, f"The body is no JSON that can be used, {why}: correct it and send it again.")


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once
