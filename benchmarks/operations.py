"""Operation of `clm up`: time until ready, memory, retrains, and latency of webhooks, also without Prefect.

For the outage, Prefect's server is stopped by SIGSTOP, so that requests hang, and killed at the end; the
outage is over when the restarted server answers. The runs wait in a paused queue, so nothing is trained.
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

from benchmarks.table import MIB, PROCESSOR, SECONDS, Row, Timing, timing_of, within
from clm_core.api.signatures import sign
from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.platform import stack_state

MARKETS = 100
"""Number of markets, with two models each."""
BARS = 2_400
"""Bars of a market: a fit needs some 550, and the shortest fold a quarter of all."""
CONNECTIONS = 8
OUTAGE_S = 120.0
REST_S = 60.0
"""Seconds of memory samples at rest, long enough for a maintenance pass."""
SAMPLE_S = 3.0
"""Seconds between two samples."""
READY_WITHIN_S = 30.0
DISPATCHED_WITHIN_S = 60.0
ACCEPTED_WITHIN_S = 0.25
MAX_MIB = 900.0
RETRAINS = 5
RETRAINED = "xgboost_BTCUSD"
RETRAIN_DAYS = 365
RETRAIN_LIMIT_S = 4.0
WITHOUT_CACHE = "[training]\nfold_cache_mib = 0\n"
"""Settings of the stack: with a cache, a retrain takes over the folds of the one before."""
DEADLINE_S = 600.0
CLM = Path(sys.executable).with_name("clm")


@dataclass(frozen=True)
class Delivered:
    """Webhooks accepted by a stack."""

    durations: list[float]
    """Seconds until each answer."""
    processor_s: float
    """Processor seconds of the whole stack for a webhook."""


@dataclass(frozen=True)
class Stack:
    """A running `clm up`."""

    home: Path
    secret: bytes
    """Key of the sender's signatures."""
    environment: dict[str, str]
    """Environment of a command in the home."""

    @property
    def state(self) -> stack_state.StackState:
        state = stack_state.running(self.home)
        assert state is not None, "clm up does not run any more"
        return state

    def prefect(self, method: str, path: str, body: Any) -> Any:
        user, _, password = stack_state.prefect_auth(self.home).partition(":")
        url = f"{self.state.prefect_api_url}{path}"
        answer = httpx.request(method, url, json=body, auth=(user, password), timeout=30).raise_for_status()
        return answer.json() if answer.content else None

    def pause_training(self) -> None:
        self.prefect("POST", "/work_pools/clm/queues", {"name": "paused", "is_paused": True})
        deployment = self.prefect("GET", "/deployments/name/retrain/on-demand", None)
        queue = {"work_pool_name": "clm", "work_queue_name": "paused"}
        self.prefect("PATCH", f"/deployments/{deployment['id']}", queue)

    def deliver(self, models: list[str]) -> "Delivered":
        """Request a retrain of each model."""
        before = self.processor_s()
        limits = httpx.Limits(max_connections=CONNECTIONS)
        with (
            httpx.Client(base_url=self.state.api_url or "", limits=limits, timeout=30) as client,
            ThreadPoolExecutor(CONNECTIONS) as senders,
        ):
            durations = list(senders.map(lambda model: self._post(client, model), models))
        return Delivered(durations, (self.processor_s() - before) / len(models))

    def _post(self, client: httpx.Client, model: str) -> float:
        model_type, symbol = model.split("_")
        data = {
            "model_type": model_type,
            "symbol": symbol,
            "training_params": {"rounds": 2},
            "requested_by": "bench",
        }
        body = json.dumps({"type": "manual.training_requested", "data": data}).encode()
        message_id = secrets.token_hex(8)
        now = str(int(time.time()))
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": now,
            "webhook-signature": sign(self.secret, message_id, now, body),
            "Content-Type": "application/json",
        }
        began = time.perf_counter()
        answer = client.post("/webhooks/bench", content=body, headers=headers)
        duration = time.perf_counter() - began
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return duration

    @property
    def processes(self) -> set[int]:
        """Supervisor and database, whose descendants all other processes are."""
        database = (self.home / "postgres" / "postmaster.pid").read_text().split()[0]
        return {self.state.pid, int(database)}

    def processor_s(self) -> float:
        """Processor seconds of all processes, ended ones included."""
        return processor_s_of(self.processes)

    def stop_prefect(self) -> int:
        """Stop Prefect's server, and return its process id."""
        process = self._server()
        os.kill(process, signal.SIGSTOP)
        return process

    def end_outage(self, stopped: int) -> None:
        """Kill the stopped server, and wait until the supervisor has restarted Prefect."""
        os.kill(stopped, signal.SIGKILL)
        seconds_until(lambda: self.state.healthy and self._server() != stopped)

    def runs(self, models: list[str]) -> int:
        ids = [f"{model}_1h".lower() for model in models]
        return int(self.prefect("POST", "/flow_runs/count", {"flow_runs": {"tags": {"any_": ids}}}))

    def ended(self, models: list[str]) -> int:
        """Number of runs of the models that have ended."""
        ids = [f"{model}_1h".lower() for model in models]
        ended = {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}
        return int(
            self.prefect("POST", "/flow_runs/count", {"flow_runs": {"tags": {"any_": ids}, "state": ended}})
        )

    def versions(self) -> list[str]:
        """All versions, as MODEL@VERSION."""
        return [f"{each['model_id']}@{each['version']}" for each in self.listed("models")]

    def retrain(self) -> None:
        """Retrain on a year of hours as a schedule does, until the run has ended."""
        ended = self.ended([RETRAINED])
        deployment = self.prefect("GET", "/deployments/name/retrain/on-demand", None)
        request = {
            "model_type": "xgboost",
            "symbol": "BTCUSD",
            "dataset_span_days": RETRAIN_DAYS,
            "requested_by": "bench",
            "again": True,
        }
        self.prefect(
            "POST", f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"request": request}}
        )
        while self.ended([RETRAINED]) == ended:
            # Prefect's server takes processor time for each answer
            time.sleep(1.0)

    def listed(self, command: str) -> list[Any]:
        """Output of a command of `clm` that lists."""
        listed = subprocess.run(
            [CLM, command, "--json"], env=self.environment, capture_output=True, text=True, check=True
        )
        return list(json.loads(listed.stdout))

    def _server(self) -> int:
        [process] = [part.pid or 0 for part in self.state.parts if part.name == "prefect"]
        return process


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="clm-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        models = add_markets(home)
        with running(home, WITHOUT_CACHE) as (stack, ready_s):
            started_s = stack.processor_s()
            memory = memory_at_rest(stack)
            rest_s = (stack.processor_s() - started_s) / REST_S
            retrains = timed_retrains(stack, rest_s)
            stack.pause_training()
            usual = stack.deliver([models[0]] * len(models))
            outage, dispatched_s = deliver_in_outage(stack, models[1:])
    return [
        within("the first clm up, until ready", ready_s, READY_WITHIN_S, SECONDS, processor_s=started_s),
        within(
            "clm up at rest, memory (PSS) of all processes "
            f"(maximum, during maintenance: {max(memory):,.0f} MiB; {rest_s:.0%} of a processor)",
            statistics.median(memory),
            MAX_MIB,
            MIB,
        ),
        within(
            f"retrain of xgboost, {RETRAIN_DAYS} days of hours, as a run of clm up: all its processes, "
            "less their work at rest",
            retrains,
            RETRAIN_LIMIT_S,
            SECONDS,
            PROCESSOR,
        ),
        latency("Prefect up", usual),
        latency(f"Prefect down for {OUTAGE_S:.0f} s", outage),
        within(
            f"{len(outage.durations)} webhooks of the outage, from Prefect's return until each has a run",
            dispatched_s,
            DISPATCHED_WITHIN_S,
            SECONDS,
        ),
    ]


def timed_retrains(stack: Stack, rest_s: float) -> Timing:
    """Seconds of retrains after a first one, until Prefect has their logs.

    Args:
        rest_s: share of a processor that the stack takes at rest.
    """
    stack.retrain()
    runs = list[tuple[float, float]]()
    for _ in range(RETRAINS):
        before = stack.processor_s()
        began = time.monotonic()
        stack.retrain()
        clock = time.monotonic() - began
        time.sleep(SAMPLE_S)
        used = stack.processor_s() - before
        runs.append((clock, used - rest_s * (time.monotonic() - began)))
    states = [each["status"] for each in stack.listed("jobs")]
    assert set(states) == {"completed"}, f"jobs ended as {', '.join(states)}"
    return timing_of(runs)


def deliver_in_outage(stack: Stack, models: list[str]) -> tuple[Delivered, float]:
    """Webhooks of an outage, and the seconds from Prefect's return until each has a run."""
    stopped = stack.stop_prefect()
    end = time.monotonic() + OUTAGE_S
    delivered = stack.deliver(models)
    time.sleep(max(0.0, end - time.monotonic()))
    stack.end_outage(stopped)
    return delivered, seconds_until(lambda: stack.runs(models) >= len(models))


def latency(circumstances: str, delivered: Delivered) -> Row:
    durations = delivered.durations
    p95 = statistics.quantiles(durations, n=20, method="inclusive")[-1]
    name = (
        f"a webhook until accepted, p95 of {len(durations)} over {CONNECTIONS} connections, "
        f"{circumstances} "
        f"(p50 {statistics.median(durations) * 1e3:.0f} ms, maximum {max(durations) * 1e3:.0f} ms)"
    )
    return within(name, p95, ACCEPTED_WITHIN_S, processor_s=delivered.processor_s)


@contextlib.contextmanager
def running(home: Path, settings: str = "") -> Iterator[tuple[Stack, float]]:
    """Run `clm up` while the block lasts; yields the stack and the seconds until ready.

    Args:
        settings: text of the settings file, without the source of the webhooks.
    """
    secret = secrets.token_bytes(32)
    file = home / "clm.toml"
    source = f'[webhooks.bench]\nsecrets = ["whsec_{b64encode(secret).decode()}"]\n'
    file.write_text(source + settings)
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("CLM_", "PREFECT_"))
    }
    environment = inherited | {"CLM_HOME": str(home), "CLM_CONFIG": str(file)}
    began = time.monotonic()
    subprocess.run([CLM, "up", "--detach"], env=environment, stdout=subprocess.DEVNULL, check=True)
    try:
        yield Stack(home, secret, environment), time.monotonic() - began
    finally:
        subprocess.run([CLM, "down"], env=environment, stdout=subprocess.DEVNULL, check=True)


def add_markets(home: Path) -> list[str]:
    """Import the same bars under many symbols; returns models (`xgboost_M001USD`), the first a spare."""
    bars = MarketData(home).bars("EURUSD", "1h", closed_by=datetime.now(UTC))[:BARS]
    store = SeriesStore(home / "data")
    symbols = [f"M{number:03}USD" for number in range(MARKETS + 1)]
    columns = [getattr(bars, name) for name in ("time", "open", "high", "low", "close", "volume")]
    for symbol in symbols:
        store.add(Bars(symbol, bars.timeframe, bars.calendar, *columns), "bench", datetime.now(UTC))
    return [
        "xgboost_M000USD",
        *(f"{kind}_{each}" for each in symbols[1:] for kind in ("xgboost", "lightgbm")),
    ]


def memory_at_rest(stack: Stack) -> list[float]:
    """Samples of the memory in MiB."""
    samples = list[float]()
    end = time.monotonic() + REST_S
    while time.monotonic() < end:
        samples.append(memory_mib(stack))
        time.sleep(SAMPLE_S)
    return samples


def memory_mib(stack: Stack) -> float:
    """Memory of all processes; a shared page is divided among the processes that share the page."""
    return sum(map(pss_mib, with_descendants(stack.processes)))


def with_descendants(processes: set[int]) -> set[int]:
    children = defaultdict[int, set[int]](set)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children[int(fields[1])].add(int(stat.parent.name))
    seen = set[int]()
    while processes:
        seen |= processes
        processes = {child for process in processes for child in children[process]}
    return seen


def processor_s_of(processes: set[int]) -> float:
    """Processor seconds of processes and their descendants, ended ones included."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for process in with_descendants(processes):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(map(int, fields[11:15])) / ticks
    return total


def pss_mib(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        # the process has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def seconds_until(done: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < DEADLINE_S, "the condition was not met in time"
        time.sleep(0.2)
    return time.monotonic() - began
