"""Supervision of parts that die, hang or are killed, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import PATIENT_SECONDS

from clm_core.platform.stack_state import PartState, PartStatus
from deployments import janitor
from deployments.supervisor import StackPart, Supervisor

SLEEP = "import time; time.sleep(600)"
# server with a child process that does not end by itself
WITH_CHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
print(child.pid, flush=True)
child.wait()
"""
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); {SLEEP}"


@pytest.fixture
def reports() -> list[PartState]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, reports: list[PartState]) -> Iterator[Supervisor]:
    with Supervisor(tmp_path, reports.append) as supervisor:
        yield supervisor


def part(script: str = SLEEP, is_ready: Callable[[], bool] = lambda: True) -> StackPart:
    return StackPart("server", [sys.executable, "-c", script], {}, is_ready)


def check_until(supervisor: Supervisor, done: Callable[[], bool], seconds: float = PATIENT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, supervisor.states
        supervisor.check_parts()


def exists(pid: int) -> bool:
    """True for a living process; zombies do not count, because some containers never reap them."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(done: Callable[[], bool], seconds: float = PATIENT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_part_is_ready_when_it_answers(supervisor: Supervisor) -> None:
    answers = iter([False, False, True])
    supervisor.start(part(is_ready=lambda: next(answers)))
    assert supervisor.wait_until_ready(["server"], seconds=PATIENT_SECONDS) == []


def test_a_part_that_never_answers_is_named(supervisor: Supervisor) -> None:
    supervisor.start(part(is_ready=lambda: False))
    assert supervisor.wait_until_ready(["server"], seconds=0.3) == ["server"]


def test_a_dead_part_is_restarted_and_reported(supervisor: Supervisor, reports: list[PartState]) -> None:
    supervisor.start(part())
    supervisor.wait_until_ready(["server"], seconds=PATIENT_SECONDS)
    [before] = supervisor.states
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    check_until(supervisor, lambda: supervisor.states[0].restarts == 1)
    supervisor.wait_until_ready(["server"], seconds=PATIENT_SECONDS)
    [after] = supervisor.states
    assert after.pid != before.pid
    assert [(each.status, each.last_exit) for each in reports if each.status is PartStatus.RESTARTING] == [
        (PartStatus.RESTARTING, "SIGKILL")
    ]


def test_a_part_that_keeps_dying_is_restarted_with_growing_delays(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.supervisor.FIRST_DELAY_SECONDS", 0.2)
    supervisor.start(part("raise SystemExit(3)"))
    check_until(supervisor, lambda: supervisor.states[0].restarts == 2)
    started = time.monotonic()
    check_until(supervisor, lambda: supervisor.states[0].restarts == 3)
    assert time.monotonic() - started > 0.7
    assert supervisor.states[0].last_exit == "code 3"


@pytest.fixture
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.supervisor.PROBE_SECONDS", 0.2)
    monkeypatch.setattr("deployments.supervisor.SILENT_SECONDS", 0.6)
    monkeypatch.setattr("deployments.supervisor.STOP_SECONDS", 0.5)
    monkeypatch.setattr("deployments.supervisor.LEFTOVER_SECONDS", 0.5)


@pytest.mark.usefixtures("short_probes")
def test_a_hung_part_is_killed_and_restarted(supervisor: Supervisor) -> None:
    answers = iter([True, False, False])
    supervisor.start(
        StackPart("server", [sys.executable, "-c", STUBBORN], {}, lambda: True, lambda: next(answers, False))
    )
    check_until(supervisor, lambda: supervisor.states[0].restarts == 1)
    assert supervisor.states[0].last_exit == "no answer for 0.6 s"


@pytest.mark.usefixtures("short_probes")
def test_a_part_that_answers_sometimes_is_not_restarted(supervisor: Supervisor) -> None:
    answers = [False, False, True] * 4
    supervisor.start(StackPart("server", [sys.executable, "-c", SLEEP], {}, lambda: True, answers.pop))
    check_until(supervisor, lambda: answers == [False])
    assert supervisor.states[0].restarts == 0
    assert supervisor.states[0].status is PartStatus.READY


def test_the_children_of_a_dead_part_end_before_its_restart(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(part(WITH_CHILD))
    log = tmp_path / "server.log"
    check_until(supervisor, lambda: log.read_text().strip() != "")
    child = int(log.read_text())
    [state] = supervisor.states
    assert state.pid is not None
    os.kill(state.pid, signal.SIGKILL)
    check_until(supervisor, lambda: supervisor.states[0].restarts == 1)
    assert not exists(child)


def test_leaving_the_block_ends_all_parts_and_kills_those_that_ignore_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.supervisor.STOP_SECONDS", 0.5)
    with Supervisor(tmp_path, lambda state: None) as supervisor:
        supervisor.start(part(STUBBORN))
        check_until(supervisor, lambda: "up" in (tmp_path / "server.log").read_text())
        [state] = supervisor.states
    assert state.pid is not None
    assert not exists(state.pid)


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from deployments.supervisor import StackPart, Supervisor
with Supervisor(Path({str(tmp_path)!r}), lambda state: None) as supervisor:
    supervisor.start(StackPart("server", [sys.executable, "-c", {WITH_CHILD!r}], {{}}, lambda: True))
    while True:
        supervisor.check_parts()
"""
    # the janitor looks for a database of the home, and finds none to stop
    environment = os.environ | {"CLM_HOME": str(tmp_path / "home"), "CLM_DATABASE_URL": "postgresql://no/no"}
    log = tmp_path / "server.log"
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as supervisor:
        wait_until(lambda: log.exists() and log.read_text().strip() != "")
        child = int(log.read_text())
        supervisor.kill()
    wait_until(lambda: not exists(child))


def test_the_janitor_does_nothing_when_all_ended_well() -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True) as bystander:
        report = f"+{bystander.pid}\n-{bystander.pid}\ndone\n"
        subprocess.run([sys.executable, "-m", janitor.__name__], input=report, text=True, check=True)
        assert bystander.poll() is None
        bystander.kill()
