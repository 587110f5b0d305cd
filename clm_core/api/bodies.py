"""Request bodies: limited in size, time and encoding before parsing, then parsed as unambiguous JSON."""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clm_core.api.errors import problem

FORM = "application/x-www-form-urlencoded"
MAX_DEPTH = 32
MAX_INTEGER = 2**53
"""Largest integer that every JSON parser reads exactly (RFC 8259, section 6)."""


def content_type(headers: Headers) -> str:
    """Media type of a body without its parameters; empty where not stated."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


class BodyLimits:
    """Middleware that reads the whole body before the application is called, or refuses the request.

    Args:
        forms: paths whose POST takes a form; everything else takes JSON.
        any_kind: paths that check the type of the content themselves.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        seconds: float,
        forms: Iterable[str] = (),
        any_kind: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._forms = [compile_path(path)[0] for path in forms]
        self._any_kind = [compile_path(path)[0] for path in any_kind]
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            body = await self._read(headers, receive)
            self._require_kind(scope, headers, body)
        except HTTPException as refused:
            answer = problem(refused.status_code, refused.detail, headers={"Connection": "close"})
            await answer(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _require_kind(self, scope: Scope, headers: Headers, body: bytes) -> None:
        if any(each.match(scope["path"]) for each in self._any_kind):
            return
        kind = content_type(headers)
        takes_form = scope["method"] == "POST" and any(form.match(scope["path"]) for form in self._forms)
        if takes_form and kind != FORM:
            raise HTTPException(415, f"Send a form, with Content-Type: {FORM}.")
        if body and not takes_form and not is_json(kind):
            raise HTTPException(415, "Send JSON, with Content-Type: application/json.")

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        if headers.get("content-encoding") is not None:
            raise HTTPException(415, "Send the body as it is, without Content-Encoding.")
        if "content-length" in headers and "transfer-encoding" in headers:
            # a reverse proxy might trust the other header (request smuggling)
            raise HTTPException(400, "Send Content-Length or Transfer-Encoding, not both.")
        announced = headers.get("content-length", "0")
        # an endless row of digits is a large number too
        if announced.isdecimal() and (len(announced) > 18 or int(announced) > self._max_bytes):
            raise self._too_large()
        return await self._collect(receive)

    async def _collect(self, receive: Receive) -> bytes:
        body = bytearray()
        more = True
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
        """Message received by now: a busy server must not count as a slow sender."""
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
    """Route that accepts unambiguous JSON only."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())


def parse_json(body: bytes) -> Any:
    """JSON in UTF-8 that every parser reads alike.

    Raises:
        HTTPException: the body is not JSON, has a key twice, NaN or infinity, an integer beyond 2^53, text
            that is not Unicode, or lists and objects nested deeper than 32.
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
        raise _bad(f"nested deeper than {MAX_DEPTH}") from None
    except UnicodeError:
        raise _bad("not UTF-8") from None
    except ValueError as error:
        raise _bad(str(error)) from None
    return parsed


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError("a key is there twice")
    return parsed


def _integer(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > MAX_INTEGER:
        raise ValueError("a whole number is beyond 2^53")
    return int(digits)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number


def _require_plain(parsed: Any) -> None:
    level = [parsed]
    depth = 0
    while level:
        if depth >= MAX_DEPTH and any(isinstance(value, dict | list) for value in level):
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        _require_text(level)
        level = [item for value in level for item in _inside(value)]
        depth += 1


def _require_text(level: list[Any]) -> None:
    """Refuses a lone surrogate, written as \\ud800, in texts and keys."""
    keys = [key for value in level if isinstance(value, dict) for key in value]
    for text in [*keys, *(value for value in level if isinstance(value, str))]:
        text.encode()
        if "\0" in text:
            raise ValueError("a text of the body holds the character NUL, which cannot be stored")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _bad(why: str) -> HTTPException:
    return HTTPException(400, f"The body is not valid JSON ({why}): correct it and send it again.")


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once
