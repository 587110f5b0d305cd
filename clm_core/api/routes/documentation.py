"""/docs: Swagger UI from files of the installation, without the internet."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from fastapi import Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse


def openapi(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())


def page() -> HTMLResponse:
    html = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="CLM",
        swagger_js_url="/docs/swagger-ui.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    )
    return HTMLResponse(html.body, headers={"Content-Security-Policy": _policy(bytes(html.body).decode())})


def script() -> FileResponse:
    return FileResponse(_files() / "swagger-ui-bundle.js")


def style() -> FileResponse:
    return FileResponse(_files() / "swagger-ui.css")


def icon() -> FileResponse:
    return FileResponse(_files() / "favicon.png")


@cache
def _files() -> Path:
    return Path(str(files("fastapi_offline"))) / "static"


def _policy(html: str) -> str:
    """Content security policy that allows the script of the page and no other inline script."""
    [inline] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    own = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{own}'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
    )
