"""`clm up` as somebody types it: everything it runs, and that nothing of it stays."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clm_core import stack

pytestmark = pytest.mark.xdist_group("servers")

CLM = Path(sys.executable).with_name("clm")
NOT_UP = 3


class Installation:
    """A home of its own with the commands on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        mine = {
            name: value for name, value in os.environ.items() if not name.startswith(("CLM_", "PREFECT_"))
        }
        self.environment = mine | {"CLM_HOME": str(home)}

    def clm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CLM, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    @property
    def state(self) -> stack.StackState:
        found = stack.running(self.home)
        assert found is not None
        return found

    def prefect(self, method: str, path: str, body: Any = None) -> Any:
        user, _, password = stack.prefect_auth(self.home).partition(":")
        url = f"{self.state.prefect_api_url}{path}"
        answer = httpx.request(method, url, json=body, auth=(user, password), timeout=20)
        return answer.raise_for_status().json()

    def processes(self) -> list[int]:
        """Of this home, whoever started them; found by their environment."""
        mark = f"CLM_HOME={self.home}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


def wait_until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def up(home: Path) -> Iterator[Installation]:
    installation = Installation(home / "up")
    started = installation.clm("up", "--detach")
    assert started.returncode == 0, started.stderr
    assert "http://127.0.0.1:" in started.stdout
    yield installation
    assert installation.clm("down").returncode == 0
    wait_until(lambda: installation.processes() == [], seconds=10)
    assert json.loads(installation.clm("status", "--json").stdout)["up"] is False


def test_status_tells_that_each_part_answers_and_what_runs_next(up: Installation) -> None:
    found = up.clm("status", "--json")
    assert found.returncode == 0, found.stdout
    status = json.loads(found.stdout)
    assert {part["name"]: part["healthy"] for part in status["parts"]}.items() >= {
        "prefect": True,
        "mlflow": True,
        "worker": True,
    }.items()
    assert {run["deployment"] for run in status["next_runs"]} >= {"xgboost_btcusd_1h", "lightgbm_btcusd_1h"}


def test_a_second_one_is_refused_with_what_to_do(up: Installation) -> None:
    refused = up.clm("up")
    assert refused.returncode == 1
    assert "clm down" in refused.stderr


def test_only_this_machine_reaches_it_and_prefect_only_with_the_password(up: Installation) -> None:
    assert httpx.post(f"{up.state.prefect_api_url}/flows/filter", json={}).status_code == 401
    forged = httpx.get(up.state.mlflow_url, headers={"Host": "evil.example"})
    assert forged.status_code == 403
    for url in (up.state.prefect_url, up.state.mlflow_url):
        assert re.match(r"http://127\.0\.0\.1:", url)


def test_no_secret_is_on_a_command_line(up: Installation) -> None:
    secret = stack.prefect_auth(up.home).encode()
    for process in up.processes():
        assert secret not in Path(f"/proc/{process}/cmdline").read_bytes()


def test_a_retrain_launched_in_prefect_runs_on_the_worker_and_is_judged(up: Installation) -> None:
    deployment = up.prefect("GET", "/deployments/name/retrain/lightgbm_btcusd_1h")
    request = deployment["parameters"]["request"] | {
        "dataset_span_days": 150,
        "training_params": {"rounds": 5},
    }
    body = {"parameters": {"request": request}}
    run = up.prefect("POST", f"/deployments/{deployment['id']}/create_flow_run", body)
    ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    wait_until(lambda: up.prefect("GET", f"/flow_runs/{run['id']}")["state_type"] in ended, seconds=120)
    state = up.prefect("GET", f"/flow_runs/{run['id']}")["state"]
    assert state["type"] == "COMPLETED", state
    [version] = json.loads(up.clm("models", "--json").stdout)
    assert version["model_id"] == "lightgbm_btcusd_1h"


def test_a_server_that_is_killed_comes_back_and_is_reported(up: Installation) -> None:
    [before] = [part for part in up.state.parts if part.name == "mlflow"]
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: up.state.healthy and "mlflow" in {p.name for p in up.state.parts if p.restarts == 1})
    assert "mlflow: ended (SIGKILL)" in (stack.folder(up.home) / "logs" / "up.log").read_text()


def test_when_nothing_is_up_status_says_so_and_still_shows_what_is_known(home: Path) -> None:
    installation = Installation(home / "idle")
    answer = installation.clm("status")
    assert answer.returncode == NOT_UP
    assert "clm up" in answer.stdout
    assert "Jobs: none yet" in answer.stdout
    assert "Nothing is up" in installation.clm("down").stdout
