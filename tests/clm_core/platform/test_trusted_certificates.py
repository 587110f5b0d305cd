"""The trusted certificates are read once in a process, however often the supervisor asks its parts."""

import ssl
from typing import Any

import pytest

from clm_core.domain.errors import ServerUnavailable
from clm_core.platform.prefect_runs import ask, is_answering
from clm_core.platform.trusted_certificates import trusted_certificates

NOBODY = "http://127.0.0.1:9"


def test_probes_of_a_server_read_the_certificates_once_and_servers_are_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = list[ssl.SSLContext]()
    read = ssl.create_default_context

    def counted(**options: Any) -> ssl.SSLContext:
        reads.append(read(**options))
        return reads[-1]

    monkeypatch.setattr(ssl, "create_default_context", counted)
    trusted_certificates.cache_clear()
    for _ in range(3):
        assert not is_answering(f"{NOBODY}/health")
        with pytest.raises(ServerUnavailable):
            ask({"PREFECT_API_URL": NOBODY}, "GET", "/health")
    assert reads == [trusted_certificates()]
    assert trusted_certificates().verify_mode is ssl.CERT_REQUIRED
