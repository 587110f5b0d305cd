"""Pages to log in to MLflow's server and out, complete in one file: nothing else is read before a login."""

import base64
from hashlib import sha256
from html import escape
from urllib.parse import quote

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; background: #f4f5f7; color: #1d2733; margin: 0 }
main { max-width: 26rem; margin: 12vh auto; background: #fff; padding: 2rem; border: 1px solid #d5dae1;
  border-radius: 8px }
h1 { font-size: 1.25rem; margin: 0 0 1rem }
label, input, button { display: block; width: 100%; box-sizing: border-box }
input { font: inherit; padding: .5rem; margin: .25rem 0 1rem; border: 1px solid #8795a8; border-radius: 4px }
button { font: inherit; padding: .6rem; border: 0; border-radius: 4px; background: #0b5cad; color: #fff }
.refusal { background: #fdecea; border: 1px solid #d9534f; border-radius: 4px; padding: .5rem .75rem }
.hint { color: #4b5a6b; font-size: .875rem }
code { background: #f4f5f7; padding: 0 .25em }
"""
# the part of an address behind `#` is known to the browser alone
_SCRIPT = "document.forms[0].action += location.hash"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


PAGE_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


def login_page(target: str, refusal: str | None = None) -> str:
    """HTML of the page.

    Args:
        target: address on this server to go to after the login.
        refusal: reason why the last try was refused.
    """
    alert = f'<p class="refusal" role="alert">{escape(refusal)}</p>' if refusal else ""
    return _page(f"""{alert}
<form method="post" action="/clm/login?next={quote(target, safe="")}">
<label for="secret">Password or token</label>
<input id="secret" name="secret" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button>
</form>
<p class="hint">The password is in <code>stack/prefect.auth</code> of the home, a token comes from
<code>clm tokens create</code>. A viewer's token reads; the password and an operator's token also
write notes and tags.</p>
<script>{_SCRIPT}</script>""")


def logout_page() -> str:
    """HTML of the page with the button that ends the session of the browser."""
    return _page("""<form method="post" action="/clm/logout">
<button>Log out</button>
</form>""")


def _page(content: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Log in to MLflow - CLM</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>MLflow of this CLM installation</h1>
{content}
</main>
</body>
</html>
"""


def safe_target(target: str) -> str:
    """The address if it is a path on this server, else `/`."""
    is_path = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if is_path and not target.startswith("/clm/") else "/"
