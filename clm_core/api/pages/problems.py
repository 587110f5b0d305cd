"""Errors of the pages as pages; errors of all other routes stay problem documents."""

from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError

from clm_core.api import errors
from clm_core.api.pages.rendering import page
from clm_core.api.routes.pages import sign_in_first
from clm_core.domain.errors import CLMError, NotAuthenticated, TooManyRequests

Handler = Callable[[Request, Exception], Response]


def handlers(pages: Collection[str]) -> dict[int | type[Exception], Any]:
    """Handlers of exceptions, for an application with pages at some paths."""
    return {kind: _either(pages, handler) for kind, handler in errors.HANDLERS.items()}


def _either(pages: Collection[str], otherwise: Handler) -> Handler:
    def handle(request: Request, error: Exception) -> Response:
        is_page = getattr(request.scope.get("route"), "path", None) in pages
        return _page_of(request, error, otherwise) if is_page else otherwise(request, error)

    return handle


def _page_of(request: Request, error: Exception, otherwise: Handler) -> Response:
    match error:
        case NotAuthenticated():
            return sign_in_first(request)
        case RequestValidationError():
            return _invalid(request, error)
        case CLMError():
            status = errors.status_of(error)
            detail = errors.ADVICE[status] if status >= HTTPStatus.INTERNAL_SERVER_ERROR else str(error)
            return _problem(request, status, detail, error)
    return _problem(request, HTTPStatus(otherwise(request, error).status_code), errors.ADVICE[503])


def _invalid(request: Request, error: RequestValidationError) -> Response:
    """Page about invalid fields of a form, or about an address without a page."""
    if any(details["loc"][0] == "path" for details in error.errors()):
        return _problem(request, HTTPStatus.NOT_FOUND, "There is no such page.")
    listed = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    detail = f"Go back, correct these and send the form again: {listed}."
    return _problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def _problem(request: Request, status: HTTPStatus, detail: str, error: Exception | None = None) -> Response:
    session = getattr(request.state, "session", None)
    response = page(request, "problem.html", status, session, title=status.phrase, detail=detail)
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.wait_seconds)
    return response
