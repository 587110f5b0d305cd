"""Errors as problem documents (RFC 9457), each with the next step."""

import json
import logging
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

log = logging.getLogger("clm.api")
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "5"}
"""Header of every 503, seconds: the supervisor usually restarts a dead server within the time."""

STATUS: Mapping[type[CLMError], HTTPStatus] = {
    errors.DataError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.StoreCorrupt: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SourceUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ModelError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.BundleCorrupt: HTTPStatus.CONFLICT,
    errors.InvalidCursor: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.SecretUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ServerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PrefectUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.InvalidMessage: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.MissingExtra: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RegistryUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.AlreadyExists: HTTPStatus.CONFLICT,
    errors.IllegalTransition: HTTPStatus.CONFLICT,
    errors.NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    errors.NotAllowed: HTTPStatus.FORBIDDEN,
    errors.PromotionRefused: HTTPStatus.CONFLICT,
    errors.AllocationRefused: HTTPStatus.CONFLICT,
    errors.ApprovalRefused: HTTPStatus.CONFLICT,
    errors.TooManyWaiting: HTTPStatus.CONFLICT,
    errors.ReplayRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FillRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.BarNotStored: HTTPStatus.CONFLICT,
    errors.ConflictError: HTTPStatus.CONFLICT,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.LeaseLost: HTTPStatus.CONFLICT,
}
"""Status of each error class; the nearest ancestor decides, without any the status is 500."""

ADVICE: Mapping[int, str] = {
    404: "Not found: /docs lists the paths of the API.",
    405: "Method not supported: the header Allow lists the methods of the path, /docs explains them.",
    408: "The request has to arrive sooner: send it again, at once.",
    500: "Internal error: give an operator the request id in `instance`; the log has the details.",
    503: "A required server is down: GET /health names the server. Try again later.",
}


def problem(
    status: int,
    detail: str,
    kind: str = "about:blank",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Problem document; the type is `about:blank` where the status says all."""
    document = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail} | more
    all_headers = (RETRY_AFTER if status == HTTPStatus.SERVICE_UNAVAILABLE else {}) | dict(headers or {})
    # escaped to ASCII: text sent by a caller may not be encodable as UTF-8
    return Response(json.dumps(document), status, all_headers, MEDIA_TYPE)


def status_of(error: CLMError) -> HTTPStatus:
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem_of(error: CLMError) -> Response:
    """Problem document with the message of the error; internals stay hidden from a status of 500 on."""
    status = status_of(error)
    kind = f"urn:clm:problem:{_kebab(type(error).__name__)}"
    match error:
        case errors.NotAuthenticated():
            return problem(status, str(error), kind, {"WWW-Authenticate": "Bearer"})
        case errors.TooManyRequests():
            return problem(status, str(error), kind, {"Retry-After": str(error.wait_seconds)})
        case errors.SecretUnavailable():
            detail = "A secret cannot be read at present; the log of the API has the reason. Try again later."
            return problem(status, detail, kind)
        case errors.PrefectUnavailable():
            return problem(status, str(error), kind)
        case errors.PromotionRefused():
            return problem(status, str(error), kind, reasons=error.reasons)
    return problem(status, ADVICE[status] if status >= 500 else str(error), kind)


def handle_clm_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, CLMError)
    if status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # the answer hides the reason
        log.warning("%s: %s", type(error).__name__, error)
    return problem_of(error)


def handle_http_error(_: Request, error: Exception) -> Response:
    """Problem document for a refusal of the framework: unknown path or method."""
    assert isinstance(error, HTTPException)
    detail = ADVICE[error.status_code] if error.status_code in ADVICE else str(error.detail)
    return problem(error.status_code, detail, headers=error.headers)


def handle_invalid_request(_: Request, error: Exception) -> Response:
    """Problem document with every invalid field, without values: a value may be a misplaced secret."""
    assert isinstance(error, RequestValidationError)
    problems = [
        {"field": ".".join(map(str, details["loc"])), "message": details["msg"]} for details in error.errors()
    ]
    listed = "; ".join(f"{each['field']}: {each['message']}" for each in problems)
    detail = f"Correct these and send it again: {listed}."
    return problem(422, detail, "urn:clm:problem:invalid-request", errors=problems)


def handle_database(_: Request, __: Exception) -> Response:
    return problem(503, ADVICE[503], "urn:clm:problem:database-unavailable")


HANDLERS: dict[int | type[Exception], Any] = {
    CLMError: handle_clm_error,
    HTTPException: handle_http_error,
    RequestValidationError: handle_invalid_request,
    OperationalError: handle_database,
    InterfaceError: handle_database,
    PoolExhausted: handle_database,
}


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
