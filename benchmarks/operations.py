"""`clm up` as whoever operates it meets it: when it is ready, what it takes, how soon a webhook is accepted,
and what an outage of Prefect does to that.

Prefect's server is stopped, so that whoever asks it waits in vain, and killed at the end of the outage; it is
back when the new one answers. Nobody trains meanwhile: the runs wait in a queue that is paused.
"""

import contextlib
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.table import MIB, SECONDS, Row, within
from clm_core.api.signatures import sign
from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.platform import stack_state

MARKETS = 100
"""Two models each."""
CONNECTIONS = 8
OUTAGE_S = 120.0
REST_S, SAMPLE_S = 60.0, 3.0
"""How long its memory is read after it is ready, and how often: one upkeep falls into a minute."""
READY_WITHIN_S, DRAINED_WITHIN_S, ACCEPTED_WITHIN_S = 30.0, 60.0, 0.25
MOST_MIB = 1500.0
PATIENCE_S = 600.0
CLM = Path(sys.executable).with_name("clm")


@dataclass(frozen=True)
class Stack:
    """A `clm up` that runs."""

    home: Path
    secret: bytes
    """The sender signs with it."""

    @property
    def state(self) -> stack_state.StackState:
        found = stack_state.running(self.home)
        assert found is not None, "clm up does not run any more"
        return found

    def prefect(self, method: str, path: str, body: Any) -> Any:
        user, _, password = stack_state.prefect_auth(self.home).partition(":")
        url = f"{self.state.prefect_api_url}{path}"
        answer = httpx.request(method, url, json=body, auth=(user, password), timeout=30).raise_for_status()
        return answer.json() if answer.content else None

    def put_training_off(self) -> None:
        self.prefect("POST", "/work_pools/clm/queues", {"name": "nobody", "is_paused": True})
        deployment = self.prefect("GET", "/deployments/name/retrain/on-demand", None)
        queue = {"work_pool_name": "clm", "work_queue_name": "nobody"}
        self.prefect("PATCH", f"/deployments/{deployment['id']}", queue)

    def deliver(self, models: list[str]) -> list[float]:
        """Ask for a retrain of each; the seconds each answer took."""
        limits = httpx.Limits(max_connections=CONNECTIONS)
        with (
            httpx.Client(base_url=self.state.api_url or "", limits=limits, timeout=30) as client,
            ThreadPoolExecutor(CONNECTIONS) as senders,
        ):
            return list(senders.map(lambda model: self._post(client, model), models))

    def _post(self, client: httpx.Client, model: str) -> float:
        model_type, symbol = model.split("_")
        data = {"model_type": model_type, "symbol": symbol, "requested_by": "bench"}
        body = json.dumps({"type": "manual.training_requested", "data": data}).encode()
        message, now = secrets.token_hex(8), str(int(time.time()))
        headers = {
            "webhook-id": message,
            "webhook-timestamp": now,
            "webhook-signature": sign(self.secret, message, now, body),
            "Content-Type": "application/json",
        }
        began = time.perf_counter()
        answer = client.post("/webhooks/bench", content=body, headers=headers)
        taken = time.perf_counter() - began
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return taken

    def stop_prefect(self) -> int:
        """Which process it was."""
        process = self._server()
        os.kill(process, signal.SIGSTOP)
        return process

    def let_prefect_return(self, stopped: int) -> None:
        """By the supervisor, which finds it dead."""
        os.kill(stopped, signal.SIGKILL)
        seconds_until(lambda: self.state.healthy and self._server() != stopped)

    def runs(self, models: list[str]) -> int:
        ids = [f"{model}_1h".lower() for model in models]
        return int(self.prefect("POST", "/flow_runs/count", {"flow_runs": {"tags": {"any_": ids}}}))

    def _server(self) -> int:
        [process] = [part.pid or 0 for part in self.state.parts if part.name == "prefect"]
        return process


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="clm-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        models = add_markets(home)
        with running(home) as (up, ready_s):
            memory = at_rest(up)
            up.put_training_off()
            working = up.deliver([models[0]] * len(models))
            outage, drained_s = through_an_outage(up, models[1:])
    return [
        within("clm up, the first time, until it is ready", ready_s, READY_WITHIN_S, SECONDS),
        within(
            f"clm up at rest, memory (PSS) of all processes (most, with an upkeep: {max(memory):,.0f} MiB)",
            statistics.median(memory),
            MOST_MIB,
            MIB,
        ),
        latency("Prefect up", working),
        latency(f"Prefect down for {OUTAGE_S:.0f} s", outage),
        within(
            f"{len(outage)} webhooks of that outage, from Prefect's return until each has its run",
            drained_s,
            DRAINED_WITHIN_S,
            SECONDS,
        ),
    ]


def through_an_outage(up: Stack, models: list[str]) -> tuple[list[float], float]:
    """Seconds each webhook took, and from Prefect's return until each has its run."""
    stopped, ends = up.stop_prefect(), time.monotonic() + OUTAGE_S
    taken = up.deliver(models)
    time.sleep(max(0.0, ends - time.monotonic()))
    up.let_prefect_return(stopped)
    return taken, seconds_until(lambda: up.runs(models) >= len(models))


def latency(circumstances: str, taken: list[float]) -> Row:
    p95 = statistics.quantiles(taken, n=20, method="inclusive")[-1]
    name = (
        f"a webhook until it is accepted, p95 of {len(taken)} over {CONNECTIONS} connections, "
        f"{circumstances} (p50 {statistics.median(taken) * 1e3:.0f} ms, worst {max(taken) * 1e3:.0f} ms)"
    )
    return within(name, p95, ACCEPTED_WITHIN_S)


@contextlib.contextmanager
def running(home: Path) -> Iterator[tuple[Stack, float]]:
    """With the seconds until it was ready."""
    secret, file = secrets.token_bytes(32), home / "clm.toml"
    file.write_text(f'[webhooks.bench]\nsecrets = ["whsec_{b64encode(secret).decode()}"]\n')
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CLM_", "PREFECT_"))}
    environment = own | {"CLM_HOME": str(home), "CLM_CONFIG": str(file)}
    began = time.monotonic()
    subprocess.run([CLM, "up", "--detach"], env=environment, stdout=subprocess.DEVNULL, check=True)
    try:
        yield Stack(home, secret), time.monotonic() - began
    finally:
        subprocess.run([CLM, "down"], env=environment, stdout=subprocess.DEVNULL, check=True)


def add_markets(home: Path) -> list[str]:
    """The same 100 bars under many symbols; `xgboost_M001USD` and so on, the first one to spare."""
    bars = MarketData(home).bars("EURUSD", "1h", closed_by=datetime.now(UTC))[:100]
    store, symbols = SeriesStore(home / "data"), [f"M{number:03}USD" for number in range(MARKETS + 1)]
    columns = [getattr(bars, name) for name in ("time", "open", "high", "low", "close", "volume")]
    for symbol in symbols:
        store.add(Bars(symbol, bars.timeframe, bars.calendar, *columns), "bench", datetime.now(UTC))
    return [
        "xgboost_M000USD",
        *(f"{kind}_{each}" for each in symbols[1:] for kind in ("xgboost", "lightgbm")),
    ]


def at_rest(up: Stack) -> list[float]:
    """MiB, read again and again."""
    samples, ends = list[float](), time.monotonic() + REST_S
    while time.monotonic() < ends:
        samples.append(memory_mib(up))
        time.sleep(SAMPLE_S)
    return samples


def memory_mib(up: Stack) -> float:
    """Shared pages are counted once, divided among those who share them."""
    database = (up.home / "postgres" / "postmaster.pid").read_text().split()[0]
    return sum(map(pss_mib, with_descendants({up.state.pid, int(database)})))


def with_descendants(processes: set[int]) -> set[int]:
    children = defaultdict[int, set[int]](set)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children[int(fields[1])].add(int(stat.parent.name))
    found = set[int]()
    while processes:
        found |= processes
        processes = {child for process in processes for child in children[process]}
    return found


def pss_mib(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def seconds_until(done: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < PATIENCE_S, "it has not come to that"
        time.sleep(0.2)
    return time.monotonic() - began
