"""Chart library of the pages: plotly.js in one file beside the reports of a home instead of in every page.

A page in a folder of the reports names the file in the folder above, where a browser finds the file when the
page is opened from the home. A page sent by a server, or written to be handed on, has the library inside.
Pages of earlier releases have the library inside as well, and stay as they are.
"""

import base64
import gzip
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from clm_core.domain.distributions import installed_version

_REFERENCE = re.compile(rb'<script src="\.\./(plotly-[\w.]+\.js)"></script>')


def file_name() -> str:
    return f"plotly-{installed_version('plotly')}.js"


def reference() -> str:
    """HTML element of a page in a folder below the folder of the file."""
    return f'<script src="../{file_name()}"></script>'


def inside() -> str:
    """HTML element of a page with the library inside."""
    return f"<script>{_script()}</script>"


def write_library(reports: Path) -> None:
    """Write the file into the folder of reports, unless the folder has the file."""
    path = reports / file_name()
    if not path.exists():
        reports.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(_script(), encoding="ascii")
        unfinished.replace(path)


def complete(page: bytes, reports: Path) -> bytes:
    """Page with the library inside: the library named by the page, or else the installed library.

    Args:
        reports: folder with the libraries of earlier releases.
    """
    named = _REFERENCE.search(page)
    if named is None:
        return page
    earlier = reports / named[1].decode()
    is_earlier = earlier.name != file_name() and earlier.is_file()
    script = earlier.read_text(encoding="ascii") if is_earlier else _script()
    return b"".join([page[: named.start()], b"<script>", script.encode(), b"</script>", page[named.end() :]])


@cache
def _script() -> str:
    """Script with plotly.js, gzipped and base64-encoded: 2 MB instead of 5."""
    package = find_spec("plotly")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).parent / "package_data" / "plotly.min.js"
    packed = gzip.compress(source.read_bytes(), compresslevel=6, mtime=0)
    return f'globalThis.packedPlotly = "{base64.b64encode(packed).decode()}";'
