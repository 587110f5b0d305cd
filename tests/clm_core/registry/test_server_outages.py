"""Outages of the MLflow server during the move of an alias: killed, stopped, failing or cut short."""

import contextlib
import http.client
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import promoting
import pytest
from mlflow_servers import ALONE, MLflowServer
from patience import PATIENT_SECONDS

from clm_core.domain.actors import Actor
from clm_core.domain.errors import RegistryUnavailable
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.promotion import Promotions
from clm_core.services import Services

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
ADA = Actor(name="ada", role=Role.OPERATOR)
# few repetitions, since the return of a server takes a while
REPETITIONS = 1 + int(os.environ.get("CHAOS_REPETITIONS", "1")) // 5


class Server(MLflowServer):
    """MLflow alone, since the guard of `clm up` lets nobody move an alias."""

    def request(
        self, method: str, path: str, body: bytes, headers: dict[str, str], timeout: float = 120
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()


class Proxy(ThreadingHTTPServer):
    """Proxy of the server; `accident` happens when the alias `production` is to be moved."""

    daemon_threads = True

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = server
        self.accident: str | None = None
        self.happened = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: broken connections are part of the test."""

    def arm(self, accident: str) -> None:
        self.accident = accident
        self.happened.clear()

    def end(self) -> None:
        """Bring the server back."""
        match self.accident:
            case "killed":
                self.behind.start()
            case "stopped":
                self.behind.signal(signal.SIGCONT)
        self.accident = None


class Handler(BaseHTTPRequestHandler):
    server: Proxy

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy = self.server
        if "registered-models/alias" in self.path and b'"production"' in body and proxy.accident:
            if not proxy.happened.is_set():
                ACCIDENTS.get(proxy.accident, lambda server: None)(proxy.behind)
            proxy.happened.set()
        fails = proxy.happened.is_set()
        if fails and proxy.accident == "answers 500":
            return self.send_error(500)
        status, answer = proxy.behind.request(self.command, self.path, body, dict(self.headers))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[: len(answer) // 2] if fails and proxy.accident == "cut short" else answer)
        return None

    # names required by http.server
    do_GET = do_POST = do_PATCH = do_DELETE = forward  # noqa: N815

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""


ACCIDENTS: dict[str, Callable[[Server], None]] = {
    "killed": Server.kill,
    "stopped": lambda server: server.signal(signal.SIGSTOP),
}


@pytest.fixture(scope="module")
def server(services: Services) -> Iterator[Server]:
    started = Server(services, ALONE)
    yield started
    started.kill()


@pytest.fixture
def proxy(server: Server, services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    import mlflow

    services.registry.connect()
    used = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with Proxy(server) as opened:
        threading.Thread(target=opened.serve_forever, daemon=True).start()
        yield opened
        opened.shutdown()
    mlflow.set_tracking_uri(used)
    mlflow.set_registry_uri(used)


@pytest.mark.parametrize("repetition", range(REPETITIONS))
@pytest.mark.parametrize("accident", ["answers 500", "cut short", "stopped", "killed"])
def test_a_server_lost_before_the_alias_moves_leaves_the_old_or_the_new_version(
    accident: str,
    repetition: int,
    services: Services,
    proxy: Proxy,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    check: Callable[[str], None],
) -> None:
    old = make_version(model_id)
    new = make_version(model_id)
    promoting.promote(services, model_id, old.version, ADA, "", NOW)
    through = MLflowRegistry(proxy.url, services.settings.home / "mlflow" / "artifacts")
    promotions = Promotions(services.ledger, through)
    through.connect()
    either = {old.mlflow_version, new.mlflow_version}
    with watched(services, model_id) as seen:
        proxy.arm(accident)
        began = time.monotonic()
        with pytest.raises(RegistryUnavailable, match="clm reconcile"):
            promotions.promote(model_id, new.version, ADA, "", NOW, promoting.judge(services, NOW))
        assert time.monotonic() - began < PATIENT_SECONDS
        assert proxy.happened.is_set()
        # a trader who reads from the server gets the outage as an error, never no version
        with contextlib.suppress(RegistryUnavailable):
            assert through.aliased(model_id, "production") in either
        proxy.end()
        wait_until(lambda: converged(promotions, model_id, check), PATIENT_SECONDS)
    assert seen
    assert seen <= either
    assert through.aliased(model_id, "production") in either


def test_promotions_and_rollbacks_through_a_server_agree_with_the_ledger(
    services: Services,
    proxy: Proxy,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    check: Callable[[str], None],
) -> None:
    through = MLflowRegistry(proxy.url, services.settings.home / "mlflow" / "artifacts")
    promotions = replace(services.promotions, registry=through)
    for version in (make_version(model_id), make_version(model_id)):
        promotions.promote(model_id, version.version, ADA, "", NOW, promoting.judge(services, NOW))
    promotions.rollback(model_id, ADA, "", NOW)
    check(model_id)


def converged(promotions: Promotions, model_id: str, check: Callable[[str], None]) -> bool:
    """True once ledger and alias agree; the server may still carry out a request from before its stop."""
    try:
        promotions.reconcile(model_id, ADA, NOW)
        check(model_id)
    except (RegistryUnavailable, AssertionError):
        return False
    return True


@contextlib.contextmanager
def watched(services: Services, model_id: str) -> Iterator[set[int | None]]:
    """Versions seen by a trader who reads the alias all the time."""
    seen = set[int | None]()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            seen.add(services.registry.aliased(model_id, "production"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def wait_until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)
