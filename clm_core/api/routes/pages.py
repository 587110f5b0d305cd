"""Home page and pages of models for people, after signing in with a token."""

from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

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
    read_form,
    set_cookie,
)
from clm_core.api.pages.rendering import page
from clm_core.api.pages.sessions import Session, Sessions
from clm_core.api.pages.surroundings import Surroundings
from clm_core.api.parameters import Label, LabelInPath, ModelIdInPath, SearchNameInPath, Text
from clm_core.api.routes import models
from clm_core.domain import verdict_text
from clm_core.domain.errors import NotAuthenticated, NotFound
from clm_core.domain.evaluations import CHECK_COLUMNS, ratio_cell
from clm_core.domain.vocabulary import Role
from clm_core.lifecycle.answered_forms import end_answered_forms
from clm_core.operations.overview import read_history, read_overview
from clm_core.registry.server.pages import safe_target
from clm_core.triggers import pending

SIGN_IN_WITHIN_SECONDS = 3600
"""Validity of the form to sign in."""
RUNS_SHOWN = 8
ALERTS_SHOWN = 20


class RefuseForm(BaseModel):
    """Fields of the button to refuse a version."""

    model_config = ConfigDict(frozen=True)

    reason: Text = Field(min_length=1)


class PromoteForm(BaseModel):
    """Fields of the form to promote a version."""

    model_config = ConfigDict(frozen=True)

    reason: Text = ""
    expected_champion: Label | Literal[""]
    """Production version on the page; empty: none."""
    request: str = Field(pattern=r"^[0-9a-f]{32}$")
    """Name of the request: a form sent twice is carried out once."""


def _surroundings(request: Request) -> Surroundings:
    surroundings: Surroundings = request.app.state.surroundings
    return surroundings


Beside = Annotated[Surroundings, Depends(_surroundings)]


def home(
    request: Request,
    session: SignedIn,
    clm: Connected,
    beside: Beside,
    name: Annotated[str, Query(max_length=200)] = "",
    number: Annotated[int, Query(ge=1, le=100_000, alias="page")] = 1,
) -> HTMLResponse:
    """All models with state, challengers, verdicts and alerts, page by page, and the next runs."""
    overview = read_overview(clm, name, number)
    return page(
        request,
        "home.html",
        name=name,
        session=session,
        overview=overview,
        alerts=overview.alerts[:ALERTS_SHOWN],
        links=beside.links(),
        runs=beside.next_runs()[:RUNS_SHOWN],
        **_deciding(session),
    )


def model(
    request: Request, model_id: ModelIdInPath, session: SignedIn, clm: Connected, beside: Beside
) -> HTMLResponse:
    """A model with challengers, the newest verdict, versions and time line."""
    history = read_history(clm, model_id)
    evaluation, verdict = history.judged or (None, None)
    return page(
        request,
        "model.html",
        session=session,
        history=history,
        model=history.overview,
        evaluation=evaluation,
        verdict=verdict,
        skill=None if verdict is None else verdict.estimate_of("skill"),
        check_columns=CHECK_COLUMNS,
        check_rows=[] if verdict is None else verdict_text.check_rows(verdict),
        ratio_cell=ratio_cell,
        links=beside.links(),
        **_deciding(session),
    )


def promote(
    model_id: ModelIdInPath, version: LabelInPath, form: OwnForm, session: SignedIn, clm: Connected
) -> Response:
    """Promote a version that awaits a decision, as `POST /clm/promote` does without force."""
    # imported here: the libraries of backtests
    from clm_core.retraining import promoting

    given = read_form(PromoteForm, form)
    promoting.promote(
        clm,
        model_id,
        version,
        session.token.actor,
        given.reason,
        expected_champion=given.expected_champion or None,
        key=f"{session.token.id}/page/{given.request}",
    )
    end_answered_forms(clm, model_id)
    return RedirectResponse(f"/models/{model_id}", 303)


def refuse(
    model_id: ModelIdInPath, version: LabelInPath, form: OwnForm, session: SignedIn, clm: Connected
) -> Response:
    """Retire a version that awaits a decision, as `clm retire` does."""
    given = read_form(RefuseForm, form)
    clm.promotions.retire(model_id, version, session.token.actor, given.reason, clm.clock())
    end_answered_forms(clm, model_id)
    return RedirectResponse(f"/models/{model_id}", 303)


def run_job(job_id: UUID, _: OwnForm, session: SignedIn, clm: Connected) -> Response:
    """Start a pending job in a worker, as `POST /clm/jobs/{job_id}/run` does."""
    pending.start(clm, job_id)
    return RedirectResponse("/", 303)


def cancel_job(job_id: UUID, _: OwnForm, session: SignedIn, clm: Connected) -> Response:
    """Cancel a pending job, as `POST /clm/jobs/{job_id}/cancel` does."""
    pending.cancel(clm, job_id, session.token.actor)
    return RedirectResponse("/", 303)


def report(model_id: ModelIdInPath, version: LabelInPath, _: SignedIn, clm: Connected) -> HTMLResponse:
    """Tear sheet of the version as an HTML page."""
    return models.report(model_id, version, clm)


def search_report(
    model_id: ModelIdInPath, name: SearchNameInPath, _: SignedIn, clm: Connected
) -> HTMLResponse:
    """Report of a tuning or an evolution as an HTML page."""
    page = clm.reports / model_id / f"{name}.html"
    if not page.is_file():
        raise NotFound(
            f"There is no report {name} of {model_id} on this machine: `clm tune` and `clm evolve` write one "
            "at their end."
        )
    return models.complete_page(page, clm)


def explanation(model_id: ModelIdInPath, version: LabelInPath, _: SignedIn, clm: Connected) -> HTMLResponse:
    """Explanation of the version as an HTML page, with its live returns up to now."""
    # imported here: the libraries of backtests
    from clm_core.lifecycle.explanations import current_page

    content = current_page(clm, clm.ledger.version(model_id, version))
    return HTMLResponse(content, headers={"Content-Security-Policy": models.REPORT_POLICY})


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


def _deciding(session: Session) -> dict[str, Any]:
    """Values of the forms to promote and refuse."""
    return {"may_decide": session.token.role.includes(Role.OPERATOR), "new_request": new_nonce}


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
