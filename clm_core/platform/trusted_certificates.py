"""Certificates of the authorities trusted for HTTPS, read once in a process.

Every client of httpx reads them anew, 20 ms of processor time, also for plain HTTP. The supervisor of
`clm up` asks its parts several times a second.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


@cache
def trusted_certificates() -> "ssl.SSLContext":
    """Certificates by default, or of the file or folder named by SSL_CERT_FILE or SSL_CERT_DIR."""
    import httpx

    return httpx.create_ssl_context()
