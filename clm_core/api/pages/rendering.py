"""HTML of the pages: templates, style sheet and strict headers."""

import base64
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from clm_core.api.pages.charts import equity_chart
from clm_core.api.pages.sessions import Session
from clm_core.domain import measures


def page(
    request: Request, template: str, status: int = 200, session: Session | None = None, **values: Any
) -> HTMLResponse:
    """Page of a template; names and reasons are escaped.

    Args:
        session: signed-in browser, whose forms the page may hold.
    """
    html = _templates().get_template(template).render(session=session, style=_style(), **values)
    return HTMLResponse(html, status, headers=_headers())


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("clm_core.api"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "moment": moment,
        "ago": ago,
        "commands": commands,
        "percent": measures.percent,
        "signed_percent": measures.signed_percent,
        "signed_ratio": measures.signed_ratio,
        "probability": measures.probability,
    }
    templates.globals["equity_chart"] = equity_chart
    return templates


@cache
def _style() -> Markup:
    environment = _templates()
    assert environment.loader is not None
    source, _, _ = environment.loader.get_source(environment, "style.css")
    return Markup(source)


@cache
def _headers() -> dict[str, str]:
    digest = base64.b64encode(sha256(_style().encode()).digest()).decode()
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self' data:; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        ),
        # with `no-referrer` browsers hide the origin of a form from its own server
        "Referrer-Policy": "same-origin",
    }


def moment(at: datetime) -> str:
    """`2026-01-31 12:00` in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def commands(text: str) -> Markup:
    """Escaped text with the commands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def ago(at: datetime, now: datetime) -> str:
    """Time between two moments in the largest fitting unit: `3 d`, `in 5 min`."""
    span = abs(now - at)
    units = ((timedelta(days=1), "d"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "min"))
    words = next((f"{span // unit} {name}" for unit, name in units if span >= 2 * unit), None)
    words = words or ("1 min" if span >= timedelta(minutes=1) else "moments")
    return f"in {words}" if at > now else words
