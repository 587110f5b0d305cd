"""Middleware that knows the methods of each path: HEAD, OPTIONS, and 405 with the header Allow."""

from collections.abc import Collection, Iterable

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clm_core.api.errors import ADVICE, problem


class Methods:
    """Answers OPTIONS and unsupported methods, and turns HEAD into GET without a body.

    Args:
        routes: method and path of each route.
        endless: paths without HEAD, whose response to GET does not end.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[tuple[str, str]], endless: Collection[str]) -> None:
        self._app = app
        methods: dict[str, set[str]] = {}
        for method, path in routes:
            has_head = method == "GET" and path not in endless
            methods.setdefault(path, {"OPTIONS"}).update({method, "HEAD"} if has_head else {method})
        self._methods = [(compile_path(path)[0], allowed) for path, allowed in methods.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = self._allowed(scope) if scope["type"] == "http" else set()
        if not allowed:
            await self._app(scope, receive, send)
            return
        allow = {"Allow": ", ".join(sorted(allowed))}
        match scope["method"]:
            case "OPTIONS":
                await _no_content(send, allow["Allow"])
            case "HEAD" if "HEAD" in allowed:
                await self._head(scope, receive, send)
            case method if method in allowed:
                await self._app(scope, receive, send)
            case _:
                await problem(405, ADVICE[405], headers=allow)(scope, receive, send)

    def _allowed(self, scope: Scope) -> set[str]:
        """Methods of the path; empty for an unknown path."""
        return {
            method for pattern, methods in self._methods if pattern.match(scope["path"]) for method in methods
        }

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        # in place: the log reads the route from the same scope
        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_without_body)
        finally:
            scope["method"] = "HEAD"


async def _no_content(send: Send, allow: str) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow.encode())]})
    await send({"type": "http.response.body", "body": b""})
