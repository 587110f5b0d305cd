"""Middleware around every request: request id, log line, Host check, security headers, and a problem
document for unexpected errors."""

import logging
import time
import uuid
from collections.abc import Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clm_core.api.errors import ADVICE, problem
from clm_core.platform import tracing

log = logging.getLogger("clm.api")

PROBES = frozenset({"/livez", "/readyz"})
"""Paths asked for by address, without a known name of the host; the answers reveal nothing."""
UNTRACED = frozenset({"/health", "/metrics"}) | PROBES
"""Paths asked for every few seconds."""
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Default headers; a route may override them."""


class Envelope:
    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        began = time.monotonic()
        status = 0
        scope.setdefault("state", {})

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers["X-Request-ID"] = request_id
            await send(message)

        async def answer_or_fail() -> None:
            try:
                await self._answer(scope, receive, send_safely)
            except Exception:
                log.exception("request %s failed", request_id)
                if status:
                    raise
                instance = f"urn:clm:request:{request_id}"
                await problem(500, ADVICE[500], instance=instance)(scope, receive, send_safely)
            finally:
                fields = _fields(scope, status, time.monotonic() - began, request_id)
                _log_request(fields)
                _describe_span(fields)

        if scope["path"] in UNTRACED:
            await answer_or_fail()
            return
        parent = Headers(scope=scope).get("traceparent")
        with tracing.span("request", kind="server", traceparent=parent, request_id=request_id):
            await answer_or_fail()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if b"%00" in scope["query_string"] or "\0" in scope["path"]:
            await problem(400, "Leave the character NUL out of the address.")(scope, receive, send)
            return
        if scope["path"] in PROBES or self._is_known_host(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        refused = problem(
            400,
            "Unknown host: an operator adds accepted hosts to [api] hosts.",
            "urn:clm:problem:bad-host",
        )
        await refused(scope, receive, send)

    def _is_known_host(self, headers: Headers) -> bool:
        """True for exactly one Host header with a known name: protects against DNS rebinding."""
        values = headers.getlist("host")
        if len(values) != 1:
            return False
        host, colon, port = values[0].lower().rpartition(":")
        if not colon or not port.isdecimal():
            host = values[0].lower()
        return host in self._hosts


def _fields(scope: Scope, status: int, seconds: float, request_id: str) -> dict[str, object]:
    """Fields of a request, with the route instead of the path and the token id instead of the token: no
    secret reaches the log or a trace."""
    return {
        "method": scope["method"] if scope["method"].isalpha() else "(odd method)",
        "route": getattr(scope.get("route"), "path", "(no route)"),
        "status": status,
        "milliseconds": round(seconds * 1000),
        "client": (scope.get("client") or ("-",))[0],
        "token_id": scope["state"].get("token_id", "-"),
        "request_id": request_id,
    }


def _describe_span(fields: Mapping[str, object]) -> None:
    """Name and attributes of the span of a request, by the conventions of OpenTelemetry."""
    status = fields["status"]
    tracing.rename(f"{fields['method']} {fields['route']}", failed=status == 0 or str(status) >= "500")
    tracing.annotate(
        **{
            "http.request.method": fields["method"],
            "http.route": fields["route"],
            "http.response.status_code": status,
            "client.address": fields["client"],
        },
        token_id=fields["token_id"],
    )


def _log_request(fields: Mapping[str, object]) -> None:
    log.info("%s %s %d %d ms from %s token %s request %s", *fields.values(), extra={"fields": fields})
