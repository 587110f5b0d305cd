"""Home page and pages of models for people, after signing in with a token."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from clm_core.api.context import Connected, Counted
from clm_core.api.pages.forms import (
    FirstForm,
    OwnForm,
    SessionsOfServer,
    SignedIn,
    begin_session,
    count_failed_login,
    end_session,
    first_cookie,
    new_nonce,
    set_cookie,
)
from clm_core.api.pages.rendering import page
from clm_core.api.pages.sessions import Sessions
from clm_core.api.pages.surroundings import Surroundings
from clm_core.api.parameters import LabelInPath, ModelIdInPath
from clm_core.api.routes import models
from clm_core.domain.errors import NotAuthenticated
from clm_core.operations.overview import read_overview
from clm_core.registry.server.pages import safe_target

SIGN_IN_WITHIN_SECONDS = 3600
"""Validity of the form to sign in."""
RUNS_SHOWN = 8
ALERTS_SHOWN = 20


def _surroundings(request: Request) -> Surroundings:
    surroundings: Surroundings = request.app.state.surroundings
    return surroundings


Beside = Annotated[Surroundings, Depends(_surroundings)]


def home(request: Request, session: SignedIn, clm: Connected, beside: Beside) -> HTMLResponse:
    """All models with state, challengers, verdicts and alerts, and the next runs."""
    overview = read_overview(clm)
    return page(
        request,
        "home.html",
        session=session,
        overview=overview,
        alerts=overview.alerts[:ALERTS_SHOWN],
        links=beside.links(),
        runs=beside.next_runs()[:RUNS_SHOWN],
    )


def report(model_id: ModelIdInPath, version: LabelInPath, _: SignedIn, clm: Connected) -> FileResponse:
    """Tear sheet of the version as an HTML page."""
    return models.report(model_id, version, clm)


def sign_in_form(request: Request, sessions: SessionsOfServer, next: str = "/") -> HTMLResponse:
    """Form to sign in."""
    return _sign_in_page(request, sessions, next)


def sign_in(request: Request, form: FirstForm, sessions: SessionsOfServer, limits: Counted) -> Response:
    """Begin a session with a token; wrong tokens are counted by address."""
    target = _target(form.get("next", "/"))
    secret = form.get("secret", "").strip()
    try:
        token = sessions.authenticate(secret)
    except NotAuthenticated as error:
        limited = count_failed_login(request, limits)
        headers = {} if limited is None else {"Retry-After": str(limited.wait_seconds)}
        status = 401 if limited is None else 429
        return _sign_in_page(request, sessions, target, str(limited or error), status, headers)
    request.state.token_id = token.id
    response = RedirectResponse(target, 303)
    begin_session(request, response, sessions.begin(token, secret))
    return response


def sign_out(request: Request, _: OwnForm) -> Response:
    """End the session of the browser."""
    response = RedirectResponse("/login", 303)
    end_session(request, response)
    return response


def sign_in_first(request: Request) -> Response:
    """Redirection of a request without a session to the form to sign in."""
    target = request.url.path if request.method == "GET" else "/"
    return RedirectResponse(f"/login?next={quote(_target(target), safe='')}", 303)


def _sign_in_page(
    request: Request,
    sessions: Sessions,
    target: str,
    refusal: str | None = None,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> HTMLResponse:
    nonce = new_nonce()
    values: dict[str, Any] = {"form_key": sessions.form_key(nonce), "target": _target(target)}
    response = page(request, "login.html", status, refusal=refusal, **values)
    response.headers.update(headers or {})
    set_cookie(request, response, first_cookie(request), nonce, SIGN_IN_WITHIN_SECONDS)
    return response


def _target(target: str) -> str:
    """Page to show after signing in: a page of this server."""
    safe = safe_target(target)
    return safe if safe.startswith("/models/") else "/"
