"""Trainings in forks of the fork server: equal results and errors, and an end with the caller."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENT_SECONDS
from trainings import a_spec

from clm_core.domain.errors import NotEnoughBars, TrainingFailed
from clm_core.market.bars import Bars
from clm_core.platform import run_engine
from clm_core.retraining import training, training_places
from clm_core.retraining.training_following import TrainingTask
from clm_core.services import Services
from deployments import fork_server

pytestmark = pytest.mark.skipif(not fork_server.is_supported(), reason="forks are used on Linux")

SERVER = """
from deployments import fork_server
fork_server.preload = lambda: __import__("clm_core.retraining.training")
if request := fork_server.main():
    fork_server.carry_out(request)
"""
QUICK = {"rounds": 2}
ENDLESS = {"rounds": 10_000, "learning_rate": 1e-6, "early_stopping_rounds": 10_000, "num_leaves": 1024}


@pytest.fixture(scope="module")
def server() -> "Iterator[subprocess.Popen[bytes]]":
    """A fork server, and no way to start a process otherwise."""
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        environment = os.environ | fork_server.ENVIRONMENT | {run_engine.HOME_VARIABLE: home}
        process = subprocess.Popen([sys.executable, "-c", SERVER], env=environment)
        deadline = time.monotonic() + PATIENT_SECONDS
        while not run_engine.is_listening(Path(home)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        patch.setenv(run_engine.HOME_VARIABLE, home)
        patch.setattr(training_places.subprocess, "Popen", None)
        yield process
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def bars(services: Services) -> Bars:
    return services.market.bars("BTCUSD", "1h", days=60, closed_by=services.clock())


def train(parameters: dict[str, float], bars: Bars, folder: Path, announce=lambda step, share: None) -> None:
    task = TrainingTask("job", a_spec(parameters), bars, folder, None)
    training_places.train_in_subprocess(task, announce, PATIENT_SECONDS)


def trainings(server: "subprocess.Popen[bytes]") -> list[int]:
    """Forks of the server."""
    return [
        int(status.parent.name)
        for status in Path("/proc").glob("[0-9]*/stat")
        if _parent_of(status) == server.pid and (status.parent / "comm").read_text() == "training\n"
    ]


def _parent_of(status: Path) -> int | None:
    try:
        return int(status.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def test_a_forked_training_gives_the_results_of_an_inline_one(
    server: "subprocess.Popen[bytes]", bars: Bars, tmp_path: Path
) -> None:
    inline = tmp_path / "inline"
    forked = tmp_path / "forked"
    inline.mkdir()
    training.train(a_spec(QUICK), bars, inline, lambda step, share: None)
    train(QUICK, bars, forked)
    assert training.read(forked, bars).bundle_digest == training.read(inline, bars).bundle_digest
    assert trainings(server) == []


def test_an_error_of_a_forked_training_reaches_the_caller(
    server: "subprocess.Popen[bytes]", bars: Bars, tmp_path: Path
) -> None:
    with pytest.raises(NotEnoughBars, match="give more days of bars"):
        train(QUICK, bars[:50], tmp_path)


def test_a_forked_training_ends_with_an_interruption(
    server: "subprocess.Popen[bytes]", bars: Bars, tmp_path: Path
) -> None:
    seen: list[int] = []

    def interrupt(step: str, share: float) -> None:
        seen.extend(trainings(server))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(ENDLESS, bars, tmp_path, interrupt)
    assert len(seen) == 1
    assert trainings(server) == []


def test_a_killed_fork_is_reported_with_the_signal(
    server: "subprocess.Popen[bytes]", bars: Bars, tmp_path: Path
) -> None:
    def kill(step: str, share: float) -> None:
        for process in trainings(server):
            os.kill(process, signal.SIGKILL)

    with pytest.raises(TrainingFailed, match="killed by signal 9; the system sends it when memory runs out"):
        train(ENDLESS, bars, tmp_path, kill)
