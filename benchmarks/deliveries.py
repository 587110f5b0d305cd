"""Time from the commit of an event until a subscriber has it, beside a subscriber that never answers.

python -m benchmarks.run deliveries

A real API process delivers; the events are committed by another process, a random time after each other.
"""

import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sqlalchemy import Engine

from benchmarks.operations import processor_s_of
from benchmarks.table import SECONDS, Row, within
from clm_core.domain.events import EventType, ProductionHalted
from clm_core.ledger import events
from clm_core.platform.database import open_database
from clm_core.services import open_ledger

EVENTS = 200
LIMIT_S = 2.0
LONGEST_PAUSE_S = 0.3
DEADLINE_S = 300.0
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="clm-deliveries-") as folder:
        home = Path(folder)
        # started by root, PostgreSQL runs as a user of its own, who needs access
        home.chmod(0o755)
        with (
            _receiver() as (url, arrived),
            socket.create_server(("127.0.0.1", 0)) as silent,
            open_database(home, None) as database,
            open_ledger(database) as engine,
        ):
            never_answers = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with _api(home, [url, never_answers]) as api:
                # the first event shows that the process listens
                _commit(engine, 0)
                _wait_for(arrived, 1)
                committed = dict[int, float]()
                before = processor_s_of({api})
                for number in range(1, EVENTS + 1):
                    time.sleep(random.uniform(0, LONGEST_PAUSE_S))
                    committed[number] = _commit(engine, number)
                _wait_for(arrived, EVENTS + 1)
                processor_s = (processor_s_of({api}) - before) / EVENTS
    durations = sorted(arrived[number] - at for number, at in committed.items())
    p95 = statistics.quantiles(durations, n=20, method="inclusive")[-1]
    name = (
        f"an event from its commit until the subscriber has it, p95 of {EVENTS}, beside a silent subscriber "
        f"(p50 {statistics.median(durations) * 1e3:.0f} ms, maximum {durations[-1] * 1e3:.0f} ms)"
    )
    yield within(name, p95, LIMIT_S, SECONDS, processor_s=processor_s)


def _commit(engine: Engine, number: int) -> float:
    """Commit an event; the time of the commit."""
    halted = ProductionHalted(
        promotion_id=number, model_id="bench", previous_version="v1", actor="bench", reason="bench"
    )
    with engine.begin() as connection:
        events.record(connection, EventType.MODEL_HALTED, halted, datetime.now(UTC))
    return time.monotonic()


def _wait_for(arrived: dict[int, float], count: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while len(arrived) < count:
        assert time.monotonic() < deadline, f"{len(arrived)} of {count} events arrived"
        time.sleep(0.05)


@contextmanager
def _receiver() -> Iterator[tuple[str, dict[int, float]]]:
    """Address of a local receiver, and the time of arrival of each event by number."""
    arrived = dict[int, float]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            arrived.setdefault(body["data"]["promotion_id"], time.monotonic())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", arrived
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _api(home: Path, urls: list[str]) -> Iterator[int]:
    """Id of an API process whose settings name the subscribers."""
    subscribers = [f'[[events.subscribers]]\nurl = "{url}"\nsecret = "{SECRET}"\n' for url in urls]
    (home / "clm.toml").write_text("".join(subscribers))
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("CLM_", "PREFECT_"))
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "clm_core.api", str(port)],
        env=inherited | {"CLM_HOME": str(home)},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        # the server ends when the pipe closes
        process.communicate()
