"""`GET /metrics` and its readers."""

from collections.abc import Callable

from fastapi.testclient import TestClient

from clm_core.domain.vocabulary import Role
from clm_core.operations.metrics import CONTENT_TYPE


def test_a_scraper_reads_the_metrics_and_nothing_else(client: Callable[[Role | None], TestClient]) -> None:
    scraped = client(Role.SCRAPER).get("/metrics")
    assert (scraped.status_code, scraped.headers["content-type"]) == (200, CONTENT_TYPE)
    assert client(Role.SCRAPER).get("/clm/status").status_code == 403
    assert client(Role.VIEWER).get("/metrics").status_code == 200
    assert client(Role.REPORTER).get("/metrics").status_code == 403
    assert client(None).get("/metrics").status_code == 401
