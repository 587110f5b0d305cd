"""Every refusal and failure as RFC 9457 says it: what is wrong, and what to do about it."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from starlette.exceptions import HTTPException

from clm_core.domain import errors
from clm_core.domain.errors import CLMError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "5"}
"""Seconds; with every 503. The supervisor has a part that died back by then, as a rule."""

STATUS: Mapping[type[CLMError], HTTPStatus] = {
    errors.DataError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.StoreCorrupt: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SourceUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ModelError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.BundleCorrupt: HTTPStatus.CONFLICT,
    errors.InvalidCursor: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ServerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.RegistryUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.AlreadyExists: HTTPStatus.CONFLICT,
    errors.IllegalTransition: HTTPStatus.CONFLICT,
    errors.NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    errors.NotAllowed: HTTPStatus.FORBIDDEN,
    errors.PromotionRefused: HTTPStatus.CONFLICT,
    errors.ConflictError: HTTPStatus.CONFLICT,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.LeaseLost: HTTPStatus.CONFLICT,
}
"""The nearest ancestor decides; what has none here is our fault and a 500."""

ADVICE: Mapping[int, str] = {
    404: "Nothing is at this address: /docs lists what there is.",
    405: "This address doesn't take this method: the header Allow names those it takes, /docs explains them.",
    500: "That is our fault, not yours: tell an operator the request id in `instance`; the log has the rest.",
    503: "Something this needs is down: GET /health says what. Try again later.",
}


def problem(
    status: int,
    detail: str,
    kind: str = "about:blank",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """A problem document. Its type is `about:blank` where the status says it all."""
    said = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail} | more
    told = (RETRY_AFTER if status == HTTPStatus.SERVICE_UNAVAILABLE else {}) | dict(headers or {})
    # escaped to ASCII: what a caller sent may be no text that UTF-8 can write
    return Response(json.dumps(said), status, told, MEDIA_TYPE)


def status_of(error: CLMError) -> HTTPStatus:
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def of_ours(error: CLMError) -> Response:
    """Our messages are for callers, except where they tell of our own insides."""
    status, kind = status_of(error), f"urn:clm:problem:{_kebab(type(error).__name__)}"
    match error:
        case errors.NotAuthenticated():
            return problem(status, str(error), kind, {"WWW-Authenticate": "Bearer"})
        case errors.TooManyRequests():
            return problem(status, str(error), kind, {"Retry-After": str(error.wait_seconds)})
        case errors.PromotionRefused():
            return problem(status, str(error), kind, reasons=error.reasons)
    return problem(status, ADVICE[status] if status >= 500 else str(error), kind)


def handle_ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, CLMError)
    return of_ours(error)


def handle_http(_: Request, error: Exception) -> Response:
    """What the framework refuses by itself: no such address, no such method."""
    assert isinstance(error, HTTPException)
    detail = ADVICE[error.status_code] if error.status_code in ADVICE else str(error.detail)
    return problem(error.status_code, detail, headers=error.headers)


def handle_invalid(_: Request, error: Exception) -> Response:
    """Every field that is wrong; never its value, which may be a secret in the wrong place."""
    assert isinstance(error, RequestValidationError)
    found = [
        {"field": ".".join(map(str, details["loc"])), "message": details["msg"]} for details in error.errors()
    ]
    named = "; ".join(f"{each['field']}: {each['message']}" for each in found)
    detail = f"Correct these and send it again: {named}."
    return problem(422, detail, "urn:clm:problem:invalid-request", errors=found)


def handle_database(_: Request, __: Exception) -> Response:
    return problem(503, ADVICE[503], "urn:clm:problem:database-unavailable")


HANDLERS: dict[int | type[Exception], Any] = {
    CLMError: handle_ours,
    HTTPException: handle_http,
    RequestValidationError: handle_invalid,
    OperationalError: handle_database,
    InterfaceError: handle_database,
    PoolExhausted: handle_database,
}


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
