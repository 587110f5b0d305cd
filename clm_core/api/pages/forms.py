"""Access to the pages: the session of the browser, and forms beyond the reach of other sites."""

import hmac
import re
import secrets
from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from clm_core.api.context import Counted
from clm_core.api.pages.sessions import SESSION_LASTS, Session, Sessions
from clm_core.domain.errors import NotAllowed, TooManyRequests
from clm_core.domain.vocabulary import Role

MAX_FIELDS = 20
FORM_KEY = "form_key"
"""Hidden field of every form."""
AGAIN = "Open the page again and send the form from there."

Fields = dict[str, str]
Form = TypeVar("Form", bound=BaseModel)


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


SessionsOfServer = Annotated[Sessions, Depends(_sessions)]


def _signed_in(request: Request, sessions: SessionsOfServer) -> Session:
    session = sessions.of_cookie(request.cookies.get(session_cookie(request)))
    request.state.token_id = session.token.id
    request.state.session = session
    return session


SignedIn = Annotated[Session, Depends(_signed_in)]


async def _fields(request: Request) -> Fields:
    """Fields of a form, each once, without control characters but line breaks."""
    try:
        pairs = parse_qsl(
            (await request.body()).decode(),
            keep_blank_values=True,
            max_num_fields=MAX_FIELDS,
            errors="strict",
        )
    except ValueError as error:
        raise NotAllowed(
            "The form is malformed: open the page again and send the form from there."
        ) from error
    fields = {name: re.sub(r"[^\S\n]|[\x00-\x08\x0e-\x1f\x7f]", " ", value) for name, value in pairs}
    if len(fields) < len(pairs):
        raise NotAllowed(f"The form has a field twice. {AGAIN}")
    return fields


def _own_form(request: Request, fields: Annotated[Fields, Depends(_fields)], session: SignedIn) -> Fields:
    require_own_form(request, fields, session.form_key)
    return fields


def _first_form(
    request: Request, fields: Annotated[Fields, Depends(_fields)], sessions: SessionsOfServer
) -> Fields:
    nonce = request.cookies.get(first_cookie(request), "")
    require_own_form(request, fields, sessions.form_key(nonce) if nonce else "")
    return fields


OwnForm = Annotated[Fields, Depends(_own_form)]
"""Fields of a form of the session."""
FirstForm = Annotated[Fields, Depends(_first_form)]
"""Fields of the form to sign in."""


def require_own_form(request: Request, fields: Fields, form_key: str) -> None:
    """Refuse a form sent from another site, or without the secret of the session.

    Raises:
        NotAllowed: another origin, a missing or a foreign secret.
    """
    origin = request.headers.get("origin")
    # behind a proxy that speaks TLS the scheme may differ, the host may not
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise NotAllowed("The form comes from a page of another server.")
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise NotAllowed("The form comes from a page of another server.")
    given = fields.get(FORM_KEY, "")
    if not form_key or not hmac.compare_digest(given.encode(), form_key.encode()):
        raise NotAllowed(f"The form is not of this session. {AGAIN}")


def read_form(form: type[Form], fields: Fields) -> Form:
    """Fields of a form as a record.

    Raises:
        RequestValidationError: a field is missing or invalid.
    """
    try:
        return form.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error


def page_guards(role: Role, writes: bool) -> list[Any]:
    """Dependencies for the access to a page."""
    return [Depends(_requires(role)), *([Depends(_own_form), Depends(_count_write)] if writes else [])]


def _requires(role: Role) -> Callable[[Session], None]:
    def require(session: SignedIn) -> None:
        token = session.token
        if not token.role.includes(role):
            raise NotAllowed(
                f"{token.name} has the role {token.role}; this takes the role {role}: ask an {role}."
            )

    return require


def _count_write(session: SignedIn, limits: Counted) -> None:
    limits.count_write(session.token.id)


def count_failed_login(request: Request, limits: Counted) -> TooManyRequests | None:
    """Count a wrong token of the address; the error once the limit is reached."""
    try:
        limits.count_failed_login(request.client.host if request.client else "unknown")
    except TooManyRequests as error:
        return error
    return None


def session_cookie(request: Request) -> str:
    """Name with the port, since a browser sends the cookies of a host to every port; over TLS with the prefix
    for cookies of the host itself alone."""
    return f"{_prefix(request)}clm_session_{_port(request)}"


def first_cookie(request: Request) -> str:
    """Name of the cookie behind the form to sign in."""
    return f"{_prefix(request)}clm_form_{_port(request)}"


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """Set a cookie out of reach of scripts and of other sites; zero seconds delete the cookie."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def begin_session(request: Request, response: Response, value: str) -> None:
    set_cookie(request, response, session_cookie(request), value, int(SESSION_LASTS.total_seconds()))
    set_cookie(request, response, first_cookie(request), "", 0)


def end_session(request: Request, response: Response) -> None:
    set_cookie(request, response, session_cookie(request), "", 0)


def new_nonce() -> str:
    return secrets.token_hex(16)


def _prefix(request: Request) -> str:
    return "__Host-" if request.url.scheme == "https" else ""


def _port(request: Request) -> int:
    return int((request.scope.get("server") or ("", 0))[1])
