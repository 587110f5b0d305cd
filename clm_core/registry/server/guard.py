"""Guard in front of MLflow's application: nobody without a credential reaches MLflow.

The guard answers 401 without a credential, and 403 for every route, role or body that `routes` and `bodies`
do not allow. MLflow receives the path that was judged, the body that was checked, and no credential.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote

import anyio.to_thread
from anyio import CapacityLimiter
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clm_core.domain.errors import CLMError, NotAllowed, NotAuthenticated, NotFound, TooManyRequests
from clm_core.domain.vocabulary import Role
from clm_core.registry import loading
from clm_core.registry.server import routes
from clm_core.registry.server.bodies import MalformedBody, Owners, checked
from clm_core.registry.server.logins import SESSION_LASTS, Login, Logins
from clm_core.registry.server.pages import PAGE_HEADERS, login_page, logout_page, safe_target
from clm_core.registry.server.routes import OPEN, AnswerHandling, MLflowRoute
from clm_core.registry.serving_rights import PRODUCTION, LedgerRecord, LoadingAdvice

LOGIN = "/clm/login"
LOGOUT = "/clm/logout"
"""Pages of the guard itself."""
MAX_BODY_BYTES = 1_048_576
"""Limit of MLflow for a batch of metrics."""
BODY_SECONDS = 30.0
"""Maximum time for the body of a request to arrive."""
WITHHELD = frozenset(
    {
        b"authorization",
        b"content-length",
        b"cookie",
        b"forwarded",
        b"transfer-encoding",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-mlflow-workspace",
    }
)
"""Headers that MLflow does not receive."""
_CODES = {
    HTTPStatus.BAD_REQUEST: "INVALID_PARAMETER_VALUE",
    HTTPStatus.UNAUTHORIZED: "UNAUTHENTICATED",
    HTTPStatus.FORBIDDEN: "PERMISSION_DENIED",
    HTTPStatus.NOT_FOUND: "RESOURCE_DOES_NOT_EXIST",
    HTTPStatus.CONFLICT: "RESOURCE_CONFLICT",
    HTTPStatus.REQUEST_TIMEOUT: "INVALID_PARAMETER_VALUE",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "INVALID_PARAMETER_VALUE",
    HTTPStatus.TOO_MANY_REQUESTS: "REQUEST_LIMIT_EXCEEDED",
    HTTPStatus.SERVICE_UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
}

log = logging.getLogger("clm.mlflow")
T = TypeVar("T")


@dataclass(frozen=True)
class Records:
    """Questions of the guard to ledger and MLflow; every one may ask the database."""

    alias_refusal: Callable[[str, int], str | None]
    """Reason why MLflow's version of a model may not carry the alias `production`."""
    loading_advice: Callable[[str], LoadingAdvice]
    """Advice on loading the bundle of a digest."""
    serving_record: Callable[[str, int], LedgerRecord]
    """Facts about MLflow's version of a model."""
    halt_sentence: Callable[[str], str | None]
    """Sentence on the halt of a model, if any."""
    owners: Owners


class BodyRefused(CLMError):
    """The body is too long, or came too slowly; carries the status of the answer."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        self.status = status
        super().__init__(reason)


class Guard:
    """ASGI application with a judgement of every request before MLflow's application."""

    def __init__(
        self,
        app: ASGIApp,
        logins: Logins,
        records: Records,
        present: Callable[[bytes], bytes],
        complete: Callable[[bytes], bytes],
        is_own_host: Callable[[str], bool],
    ) -> None:
        """
        Args:
            present: shows the locations of a JSON text as addresses of this server.
            complete: gives a page of the reports its chart library.
            is_own_host: True for a Host header of this server.
        """
        self._app = app
        self._logins = logins
        self._records = records
        self._present = present
        self._complete = complete
        self._is_own_host = is_own_host
        # apart from the threads of MLflow, so that slow requests there keep nobody from a login
        self._threads: CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            await self._judge(request, send)
            return
        except NotAuthenticated as error:
            response = _not_authenticated(request, str(error))
        except NotAllowed as error:
            response = _problem(HTTPStatus.FORBIDDEN, str(error))
        except MalformedBody as error:
            response = _problem(HTTPStatus.BAD_REQUEST, str(error))
        except BodyRefused as error:
            response = _problem(error.status, str(error))
        except TooManyRequests as error:
            response = _problem(HTTPStatus.TOO_MANY_REQUESTS, str(error))
            response.headers["retry-after"] = str(error.wait_seconds)
        except SQLAlchemyError:
            log.exception("the database does not answer")
            response = _problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The database does not answer: try again, or see `clm status`.",
            )
        await response(scope, receive, send)

    async def _judge(self, request: Request, send: Send) -> None:
        path = request.scope["path"]
        method = request.method
        if path in OPEN and method in {"GET", "HEAD"}:
            await self._app(_forwarded(request.scope, b""), _Body(b"", request.receive), send)
            return
        if not self._is_own_host(request.headers.get("host", "")):
            raise NotAllowed("The Host header names another server.")
        if path in (LOGIN, LOGOUT):
            response = await self._own_page(request, path)
            await response(request.scope, request.receive, send)
            return
        login = await self._login(request)
        if path == loading.ADDRESS and method == "GET":
            response = await self._loading(request)
            await response(request.scope, request.receive, send)
            return
        if path in (loading.RECORD, loading.HALT) and method == "GET":
            if not login.role.includes(Role.VIEWER):
                raise NotAllowed(f"The role {login.role} reads no versions.")
            response = await (self._record(request) if path == loading.RECORD else self._halt(request))
            await response(request.scope, request.receive, send)
            return
        route = routes.find(method, path)
        _require_allowed(route, login, request)
        assert route is not None
        body = await self._body(request, route)
        if _is_passed_on(route, request):
            await self._app(_forwarded(request.scope, body), _Body(body, request.receive), send)
        elif route.answer is AnswerHandling.ARTIFACT:
            answer = await self._ask(request, body)
            answer.body = await self._in_thread(lambda: self._complete(answer.body))
            await answer(request.scope, request.receive, send)
        elif route.answer is AnswerHandling.ALIAS:
            await (await self._by_alias(request))(request.scope, request.receive, send)
        else:
            await (await self._ask(request, body))(request.scope, request.receive, send)

    async def _login(self, request: Request) -> Login:
        return await self._in_thread(
            lambda: self._logins.of_request(
                request.headers.get("authorization"),
                request.cookies.get(_cookie_name(request)),
                _address(request),
            )
        )

    async def _body(self, request: Request, route: MLflowRoute) -> bytes:
        """Body that MLflow receives; empty for a GET, whose body MLflow would read as the query."""
        if request.method == "GET":
            return b""
        body = await _read(request)
        if not route.has_checked_body:
            return body
        return await self._in_thread(lambda: checked(route, body, self._records.owners))

    async def _ask(self, request: Request, body: bytes) -> "_Answered":
        answer = _Answered()
        await self._app(_forwarded(request.scope, body), _Body(body, request.receive), answer.receive)
        if answer.headers.get("content-type", "").startswith("application/json"):
            answer.body = self._present(answer.body)
        return answer

    async def _by_alias(self, request: Request) -> "_Answered | Response":
        """Version behind an alias; an error for `production` on a version that no promotion put there."""
        names = sorted(name for name, _ in request.query_params.multi_items())
        if names != ["alias", "name"]:
            raise MalformedBody("Give name and alias, once each.")
        model_id = request.query_params["name"]
        before = None
        while True:
            answer = await self._ask(request, b"")
            if request.query_params["alias"] != PRODUCTION or answer.status != HTTPStatus.OK:
                return answer
            number = int(json.loads(answer.body)["model_version"]["version"])
            refusal = await self._in_thread(lambda n=number: self._records.alias_refusal(model_id, n))  # type: ignore[misc]
            if refusal is None:
                return answer
            if number == before:
                log.warning("alias %s of %s: %s", PRODUCTION, model_id, refusal)
                return _problem(HTTPStatus.CONFLICT, refusal)
            # another version may have been promoted since MLflow's answer
            before = number

    async def _loading(self, request: Request) -> Response:
        digest = request.query_params.get("bundle_digest", "")
        advice = await self._in_thread(lambda: self._records.loading_advice(digest))
        return JSONResponse({"refusal": advice.refusal, "warning": advice.warning})

    async def _record(self, request: Request) -> Response:
        name, number = (request.query_params.get(each, "") for each in ("name", "version"))
        if not number.isascii() or not number.isdecimal() or len(number) > 9:
            raise MalformedBody("Give name, and version as MLflow's number.")
        try:
            record = await self._in_thread(lambda: self._records.serving_record(name, int(number)))
        except NotFound as error:
            return _problem(HTTPStatus.NOT_FOUND, str(error))
        return JSONResponse({"bundle_digest": record.bundle_digest, "status": record.status})

    async def _halt(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        return JSONResponse({"halted": await self._in_thread(lambda: self._records.halt_sentence(name))})

    async def _own_page(self, request: Request, path: str) -> Response:
        target = safe_target(request.query_params.get("next", "/"))
        if request.method == "GET":
            page = login_page(target) if path == LOGIN else logout_page()
            return HTMLResponse(page, headers=PAGE_HEADERS)
        if request.method != "POST":
            raise NotAllowed(f"{path} takes a form.")
        _require_same_origin(request)
        if path == LOGOUT:
            response: Response = RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER)
            response.delete_cookie(_cookie_name(request))
            return response
        return await self._try_login(request, target)

    async def _try_login(self, request: Request, target: str) -> Response:
        form = parse_qs((await _read(request)).decode(errors="replace"))
        secret = "".join(form.get("secret", [])).strip()
        try:
            login = await self._in_thread(lambda: self._logins.of_secret(secret, _address(request)))
        except (NotAuthenticated, TooManyRequests) as error:
            status = _status(error)
            return HTMLResponse(login_page(target, str(error)), status, headers=PAGE_HEADERS)
        response = RedirectResponse(target, HTTPStatus.SEE_OTHER)
        response.set_cookie(
            _cookie_name(request),
            self._logins.session(login),
            max_age=int(SESSION_LASTS.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def _in_thread(self, question: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = CapacityLimiter(20)
        return await anyio.to_thread.run_sync(question, limiter=self._threads)


def _is_passed_on(route: MLflowRoute, request: Request) -> bool:
    """True for an answer passed on byte for byte, piece by piece."""
    if route.answer is AnswerHandling.ARTIFACT:
        return not request.query_params.get("path", "").endswith(".html")
    return route.answer is AnswerHandling.FILE


class _Answered:
    """Answer of MLflow, collected."""

    def __init__(self) -> None:
        self.status = HTTPStatus.INTERNAL_SERVER_ERROR.value
        self.headers = MutableHeaders()
        self.body = b""
        self._chunks = list[bytes]()

    async def receive(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = MutableHeaders(raw=list(message.get("headers", [])))
        elif message["type"] == "http.response.body":
            self._chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                self.body = b"".join(self._chunks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers["content-length"] = str(len(self.body))
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers.raw})
        await send({"type": "http.response.body", "body": self.body})


class _Body:
    """Body of a forwarded request, and afterwards the end of the connection."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body = self._body
        self._body = None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        while (message := await self._receive())["type"] != "http.disconnect":
            # the body as it was sent, which was read or is ignored
            pass
        return message


def _forwarded(scope: Scope, body: bytes) -> Scope:
    """Request for MLflow, without credentials and with the length of the new body."""
    kept = [(name, value) for name, value in scope["headers"] if name.lower() not in WITHHELD]
    if body:
        kept.append((b"content-length", str(len(body)).encode()))
    changed: Mapping[str, Any] = {"headers": kept}
    if scope["method"] not in {"GET", "HEAD"}:
        # a write is judged by its body alone
        changed = {**changed, "query_string": b""}
    return {**scope, **changed}


async def _read(request: Request) -> bytes:
    """
    Raises:
        BodyRefused: the body is too long, or came too slowly.
    """
    chunks = list[bytes]()
    length = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                length += len(chunk)
                if length > MAX_BODY_BYTES:
                    raise BodyRefused(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        f"The body is longer than {MAX_BODY_BYTES} bytes.",
                    )
                chunks.append(chunk)
    except TimeoutError as error:
        raise BodyRefused(
            HTTPStatus.REQUEST_TIMEOUT, f"The body did not arrive within {BODY_SECONDS:g} s."
        ) from error
    return b"".join(chunks)


def _require_allowed(route: MLflowRoute | None, login: Login, request: Request) -> None:
    """
    Raises:
        NotAllowed: nobody, or nobody of the role, may send the request.
    """
    if route is None:
        # MLflow's pages ask for services that are switched off, at every view
        level = logging.INFO if request.method == "GET" else logging.WARNING
        log.log(level, "%s %s of %s refused", request.method, request.scope["path"], login.name)
        raise NotAllowed(
            "Nobody may do this over HTTP: CLM alone changes the registry and its files. `clm promote`, "
            "`clm rollback` and `clm exec -- python ...` on the machine of the installation do."
        )
    if not login.role.includes(route.role):
        raise NotAllowed(
            f"{login.name} has the role {login.role}; this takes the role {route.role}: ask an admin for "
            "another token (`clm tokens create`)."
        )
    if login.by_cookie and route.has_checked_body:
        _require_same_origin(request)


def _require_same_origin(request: Request) -> None:
    """Refuse the forms and scripts of other pages, for which a browser would send the cookie along."""
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    named = {"origin": own, "sec-fetch-site": "same-origin"}
    sent = {name: request.headers[name] for name in named if name in request.headers}
    # browsers send at least one of the two with every write
    if not sent or any(named[name] != value for name, value in sent.items()):
        raise NotAllowed("The request comes from a page of another server.")


def _not_authenticated(request: Request, reason: str) -> Response:
    is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if is_page:
        query = request.url.query
        target = request.scope["path"] + (f"?{query}" if query else "")
        return RedirectResponse(f"{LOGIN}?next={quote(safe_target(target), safe='')}", HTTPStatus.SEE_OTHER)
    response = _problem(HTTPStatus.UNAUTHORIZED, reason)
    response.headers["www-authenticate"] = 'Bearer realm="MLflow of CLM"'
    return response


def _problem(status: HTTPStatus, message: str) -> Response:
    """Error in the form of MLflow, which its clients print."""
    return JSONResponse({"error_code": _CODES[status], "message": message}, status)


def _status(error: CLMError) -> HTTPStatus:
    return HTTPStatus.TOO_MANY_REQUESTS if isinstance(error, TooManyRequests) else HTTPStatus.UNAUTHORIZED


def _cookie_name(request: Request) -> str:
    """Name with the port, since a browser sends the cookies of a host to all its ports."""
    return f"clm_mlflow_{(request.scope.get('server') or ('', 0))[1]}"


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"
