"""A large installation: time of its lists, pages, metrics, maintenance and audit, against limits.

python -m benchmarks.scale              10,000 versions, 100,000 jobs, 1,000,000 audit entries; writes a table
                                        of docs/how-to/sizing.md
python -m benchmarks.scale --part 100   a hundredth of that, printed only
"""

import argparse
import re
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from starlette.testclient import TestClient

from benchmarks.large_home import Size, enlarge, model_id, train_and_promote
from benchmarks.pages import markdown_table, replace_part
from benchmarks.run import show
from benchmarks.table import SECONDS, Row, timed, within
from clm_core.api.app import create_app
from clm_core.domain.actors import Actor
from clm_core.domain.tokens import Secret, new_token
from clm_core.domain.vocabulary import Role
from clm_core.ledger import audit_log
from clm_core.operations import maintenance
from clm_core.platform.garbage_collection import collect_garbage_rarely
from clm_core.services import Services, open_ledger, open_services
from clm_core.settings import Settings

DOCUMENT = Path("docs/how-to/sizing.md")
HOST = "http://127.0.0.1"
LIST_LIMIT_S = 0.2
METRICS_LIMIT_S = 1.0
"""A tenth of the time after which Prometheus gives a scrape up."""
MAINTENANCE_LIMIT_S = 10.0
REPEATS = 20
"""Requests of each list behind its 95th percentile."""
ADMIN = Actor(name="bench", role=Role.ADMIN)
LISTS = {
    "jobs": (
        "/clm/jobs",
        "/clm/jobs?limit=1000",
        "/clm/jobs?status=failed",
        "/clm/jobs?status=completed&descending=false",
        "/clm/jobs?model_id={model}",
        "/clm/jobs?since=2025-01-01T00:00:00Z&until=2025-02-01T00:00:00Z",
    ),
    "versions": (
        "/clm/models",
        "/clm/models?order=sharpe_ratio",
        "/clm/models?order=promotion_score&status=retired",
        "/clm/models?model_id={model}",
        "/clm/models?status=production",
        "/clm/models?symbol=M007USD&min_sharpe=-9",
        "/clm/models?metric=trades>1",
    ),
    "audit": ("/clm/audit", "/clm/audit?after=900000&limit=1000"),
    "status": ("/clm/status",),
    "metrics": ("/metrics",),
    "other lists": ("/clm/candidates", "/clm/approvals", "/clm/tokens", "/clm/fills/{model}"),
    "pages": ("/", "/models/{model}"),
}
"""Requests by list."""


def rows(size: Size = Size()) -> list[Row]:  # noqa: B008
    """Rows of a home enlarged to a size."""
    with tempfile.TemporaryDirectory(prefix="clm-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        train_and_promote(home)
        return measured(home, size)


def measured(home: Path, size: Size) -> list[Row]:
    with open_services(Settings(home=home)) as services, open_ledger(services.database) as engine:
        enlarge(services.ledger, engine, services.database, size)
        return [*_of_lists(services), _of_maintenance(services, size), *_of_audit(engine, home, size)]


def _of_lists(services: Services) -> Iterator[Row]:
    client = _signed_in(services)
    for name, paths in LISTS.items():
        taken = {}
        for path in paths:
            url = path.format(model=model_id(7))
            answer = client.get(url)
            assert answer.is_success, (url, answer.text)
            taken[path] = _p95(partial(client.get, url))
        slowest = max(taken, key=lambda path: taken[path])
        limit = METRICS_LIMIT_S if name == "metrics" else LIST_LIMIT_S
        yield within(f"{name}, p95 of the slowest request: {slowest}", taken[slowest], limit)


def _of_maintenance(services: Services, size: Size) -> Row:
    began = time.perf_counter()
    report = maintenance.run(services)
    taken = time.perf_counter() - began
    for problem in report.problems[:5]:
        print(problem)
    again = timed(lambda: maintenance.run(services, in_full=False), 3)
    name = f"maintenance of {size.models} models in production (with all files read: {taken:.1f} s)"
    return within(name, again, MAINTENANCE_LIMIT_S, SECONDS)


def _of_audit(engine: Engine, home: Path, size: Size) -> Iterator[Row]:
    folder = audit_log.anchor_folder(home)
    began = time.perf_counter()
    report = audit_log.verify(engine, audit_log.read_anchors(folder))
    taken = time.perf_counter() - began
    assert not report.problems, report.problems[:3]
    yield within(f"verifying {report.entries:,} audit entries", taken, size.audit_entries * 1e-4, SECONDS)


def _token(services: Services) -> str:
    secret = Secret.generate(secrets.token_bytes)
    token = new_token(secret, "bench", Role.ADMIN, ADMIN, services.clock(), timedelta(days=1))
    services.ledger.tokens.issue(token, secret, ADMIN)
    return secret.text


def _signed_in(services: Services) -> TestClient:
    """Client with a token and the session of a browser, of an API in this process."""
    # as the process of the API does
    collect_garbage_rarely()
    secret = _token(services)
    headers = {"Authorization": f"Bearer {secret}", "Origin": HOST}
    client = TestClient(create_app(services), HOST, headers=headers)
    [key] = re.findall(r'name="form_key" value="([^"]+)"', client.get("/login").text)
    answer = client.post("/login", data={"secret": secret, "form_key": key, "next": "/"})
    assert answer.is_success, answer.text
    return client


def _p95(work: Callable[[], object]) -> float:
    durations = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        durations.append(time.perf_counter() - began)
    return statistics.quantiles(durations, n=20, method="inclusive")[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", type=int, default=1, help="divide the size by this number")
    part = parser.parse_args().part
    table = rows(Size.part(part))
    show(table)
    if part == 1:
        cells = [(each.name, each.cells()[1], each.cells()[3]) for each in table]
        replace_part(
            DOCUMENT, "python -m benchmarks.scale", markdown_table(("work", "measured", "limit"), cells)
        )
