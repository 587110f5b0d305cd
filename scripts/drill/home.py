"""The installation of a drill: a home with a history, `clm up`, and what people and programs do with it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import invariants
import psycopg
from standardwebhooks import Webhook

from clm_core.platform import stack_state
from drill.servers import DrillFailed, wait_until

SCRIPTS = Path(__file__).parents[1]
CLM = str(Path(sys.executable).with_name("clm"))
PATIENT_SECONDS = 300.0
TRAINING = b"clm_core.retraining.training"
MODEL = "lightgbm_btcusd_1h"
SMALL = {
    "rounds": 2,
    "threshold": 0,
    "label": "volatility_scaled_return",
    "calibrate": False,
    "horizon": 12,
}
"""Parameters of a training of seconds."""
PROMOTE_ALL = """
version = 1
preset = "thresholds-only"
[models.lightgbm_btcusd_1h.criteria]
min_sharpe_ratio = -1e9
min_win_rate = 0.0
min_profit_factor = 0.0
max_drawdown = 1.0
min_trades = 0
"""
"""Policy under which any version of the model is promoted."""

Job = dict[str, Any]


class Installation:
    """A home and its `clm up`."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        kept = {name: each for name, each in os.environ.items() if not name.startswith(("CLM_", "PREFECT_"))}
        self.environment = kept | {"CLM_HOME": str(home)} | variables

    def clm(self, *words: str) -> str:
        """Output of a command.

        Raises:
            DrillFailed: the command was refused.
        """
        done = subprocess.run(
            [CLM, *words], env=self.environment, capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            raise DrillFailed(f"clm {' '.join(words)}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done.stdout

    def pass_maintenance(self) -> None:
        """`clm maintenance`, which exits with 1 where it finds the fault."""
        subprocess.run([CLM, "maintenance"], env=self.environment, capture_output=True, check=False)

    @contextmanager
    def up(self) -> Iterator[None]:
        self.clm("up", "--detach")
        try:
            yield
        finally:
            self.clm("down")

    @property
    def state(self) -> stack_state.StackState:
        state = stack_state.running(self.home)
        if state is None:
            raise DrillFailed("`clm up` has ended")
        return state

    @property
    def api(self) -> str:
        return self.state.api_url or ""

    def pid(self, part: str) -> int:
        pids = [each.pid for each in self.state.parts if each.name == part and each.pid is not None]
        if not pids:
            raise DrillFailed(f"{part} does not run")
        return pids[0]

    def postgres(self) -> list[int]:
        """Process ids of the database server: the postmaster first, then its children."""
        first = int((self.home / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def kill(self) -> int:
        """Kill every process of the installation; the number of them."""
        mark = f"CLM_HOME={self.home}\0".encode()
        pids = set[int]()
        with suppress(OSError):
            pids.update(self.postgres())
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                    pids.add(int(folder.name))
        _signal(tuple(pids), signal.SIGKILL)
        return len(pids)

    def trainings(self) -> set[int]:
        """Process ids of the trainings under way."""
        pids = set[int]()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (folder / "cmdline").read_bytes()
                is_ours = f"CLM_HOME={self.home}\0".encode() in (folder / "environ").read_bytes()
                # a fork has the name of the module
                is_fork = (folder / "comm").read_bytes() == b"training\n"
                if is_ours and (TRAINING in words or is_fork):
                    pids.add(int(folder.name))
        return pids

    def token(self, role: str) -> str:
        created = json.loads(self.clm("tokens", "create", f"drill-{role}", "--role", role, "--json"))
        return str(created["secret"])

    def change_rows(self, *statements: str) -> None:
        """Change rows as the owner of the database does, past the application and its triggers."""
        server = invariants.embedded_server(self.home).replace("/postgres?", "/clm_ledger?")
        with psycopg.connect(server) as connection:
            for statement in statements:
                connection.execute(statement)

    def figure(self, query: str) -> Any:
        server = invariants.embedded_server(self.home).replace("/postgres?", "/clm_ledger?")
        with psycopg.connect(server) as connection:
            row = connection.execute(query).fetchone()
        return None if row is None else row[0]

    def versions(self, model_id: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.clm("models", "--model-id", model_id, "--json"))
        return listed


class Client:
    """An operator's program that uses the REST API."""

    def __init__(self, installation: Installation, token: str) -> None:
        self._installation = installation
        self._headers = {"Authorization": f"Bearer {token}"}

    def train(self, model_type: str, symbol: str, days: int, **params: Any) -> str:
        """Id of the job of an accepted request."""
        body = {"model_type": model_type, "symbol": symbol, "dataset_span_days": days}
        answer = httpx.post(
            f"{self._installation.api}/clm/train",
            json=body | {"training_params": params, "again": True},
            headers=self._headers,
            timeout=60,
        )
        if answer.is_error or not answer.json().get("job_id"):
            raise DrillFailed(f"POST /clm/train: {answer.status_code} {answer.text}")
        return str(answer.json()["job_id"])

    def roll_back(self, model_id: str, version: str) -> None:
        """Put a version of the past back into production."""
        httpx.post(
            f"{self._installation.api}/clm/rollback",
            json={"model_id": model_id, "to": version, "reason": "drill"},
            headers=self._headers,
            timeout=60,
        ).raise_for_status()

    def job(self, job_id: str) -> Job:
        answer = httpx.get(
            f"{self._installation.api}/clm/jobs/{job_id}", headers=self._headers, timeout=60
        ).raise_for_status()
        job: Job = answer.json()
        return job

    def ended(self, job_id: str) -> Job:
        """A job after its end."""
        wait_until(
            lambda: self.job(job_id)["status"] in ("completed", "failed"),
            f"the job {job_id} ends",
            PATIENT_SECONDS,
        )
        return self.job(job_id)

    def version_of(self, job_id: str) -> str:
        """Label of the version that a completed job registered.

        Raises:
            DrillFailed: the job failed.
        """
        job = self.ended(job_id)
        if job["status"] != "completed":
            raise DrillFailed(f"the job {job_id} failed: {job}")
        version = self._installation.figure(
            f"SELECT version FROM model_versions WHERE training_job_id = '{job_id}'"
        )
        if version is None:
            raise DrillFailed(f"the job {job_id} registered no version")
        return str(version)


def versions_in_turn(installation: Installation, client: Client) -> tuple[str, str]:
    """Two versions that have been in production, for rollbacks to and fro."""
    labels = []
    for days in (60, 61):
        labels.append(client.version_of(client.train("lightgbm", "BTCUSD", days, **SMALL)))
        installation.clm("promote", f"{MODEL}@{labels[-1]}", "--reason", "drill")
    return labels[0], labels[1]


def sent_message(api: str, secret: str, message_id: str, data: Mapping[str, Any]) -> int:
    """Status of the answer to a signed message that requests a retrain."""
    body = json.dumps({"type": "manual.training_requested", "data": dict(data)})
    now = datetime.now(UTC)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body),
        "content-type": "application/json",
    }
    return httpx.post(f"{api}/webhooks/monitor", content=body, headers=headers, timeout=60).status_code


def make_history(home: Path, ready_made: Path | None) -> None:
    """A home with a history of weeks.

    Args:
        ready_made: home that `scripts/shown_home.py` made before, to be copied; None to make one.
    """
    if ready_made is not None:
        subprocess.run(["cp", "-a", ready_made, home], check=True)
        return
    environment = {name: each for name, each in os.environ.items() if not name.startswith("CLM_")}
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "shown_home.py")],
        env=environment | {"CLM_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DrillFailed(f"scripts/shown_home.py: {done.stderr[-1500:]}")


@contextmanager
def suspended(*processes: int) -> Iterator[None]:
    """The processes are stopped (SIGSTOP) while the block lasts."""
    _signal(processes, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(processes, signal.SIGCONT)


def _signal(processes: tuple[int, ...], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
