"""Processes forked for flow runs: they live and end with the command that asked for them."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import PATIENT_SECONDS

from clm_core.platform import run_engine
from clm_core.settings import HOME_VARIABLE
from deployments import fork_server

pytestmark = pytest.mark.skipif(not fork_server.is_supported(), reason="forks are used on Linux")

SERVER = """
import sys
from pathlib import Path
from deployments import fork_server
{before}
if request := fork_server.main():
    fork_server.carry_out(request)
"""
WITHOUT_LIBRARIES = "fork_server.preload = lambda: None"
ONE_MORE_THREAD = f"""
{WITHOUT_LIBRARIES}
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""
WATCHED_CODE = f"""
{WITHOUT_LIBRARIES}
import os
fork_server.code_times = lambda: {{"code": os.stat(os.environ["CODE"]).st_mtime_ns}}
"""
COMMAND = "from clm_core.platform import run_engine; run_engine.ENGINE = 'asked'; run_engine.main()"
"""The command of a worker, for the module `asked` in place of Prefect's engine."""
ASKED = """
import os, signal, sys, time
def stop(number, frame):
    print("stopped", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
print(os.getpid(), os.environ["ABOUT"], os.getcwd(), *sys.argv, flush=True)
if os.environ["ABOUT"] == "wait":
    time.sleep(600)
if os.environ["ABOUT"] == "abort":
    os.abort()
sys.exit(3)
"""


@contextlib.contextmanager
def new_home() -> Iterator[Path]:
    """A home with a path longer than the address of a socket may be."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "a" * 60, "b" * 60)
        home.mkdir(parents=True)
        (home / "asked.py").write_text(ASKED)
        yield home


@pytest.fixture
def home() -> Iterator[Path]:
    with new_home() as home:
        yield home


@pytest.fixture(scope="module")
def served() -> Iterator[Path]:
    """A home with a server."""
    with new_home() as home, server_of(home):
        yield home


@contextlib.contextmanager
def server_of(home: Path, before: str = WITHOUT_LIBRARIES) -> "Iterator[subprocess.Popen[bytes]]":
    environment = os.environ | fork_server.ENVIRONMENT | {HOME_VARIABLE: str(home), "PYTHONPATH": str(home)}
    server = subprocess.Popen([sys.executable, "-c", SERVER.format(before=before)], env=environment)
    try:
        wait_until(lambda: run_engine.is_listening(home))
        yield server
    finally:
        server.kill()
        server.wait()


def ask(home: Path, about: str, folder: Path = Path("/"), *words: str) -> "subprocess.Popen[str]":
    environment = os.environ | {HOME_VARIABLE: str(home), "ABOUT": about, "PYTHONPATH": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(command: "subprocess.Popen[str]") -> list[str]:
    assert command.stdout is not None
    return command.stdout.readline().split()


def is_gone(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("about", "code"), [("exit", 3), ("abort", -signal.SIGABRT)])
def test_a_run_has_the_environment_folder_and_output_of_the_command_and_gives_it_the_exit_code(
    served: Path, tmp_path: Path, about: str, code: int
) -> None:
    command = ask(served, about, tmp_path)
    child, said, folder, module = first_line(command)
    assert (said, folder) == (about, str(tmp_path))
    assert Path(module).name == "asked.py"
    assert int(child) != command.pid
    assert command.wait(PATIENT_SECONDS) == code


def test_a_command_names_another_module_with_arguments(served: Path, tmp_path: Path) -> None:
    command = ask(served, "exit", tmp_path, "asked", "one", "two")
    assert first_line(command)[-2:] == ["one", "two"]
    assert command.wait(PATIENT_SECONDS) == 3


def test_a_signal_to_the_command_reaches_the_run(served: Path) -> None:
    command = ask(served, "wait")
    first_line(command)
    command.terminate()
    assert command.communicate(timeout=PATIENT_SECONDS)[0] == "stopped\n"
    assert command.returncode == 7


def test_a_killed_command_takes_the_run_along_and_leaves_other_runs(served: Path) -> None:
    other = ask(served, "wait")
    command = ask(served, "wait")
    others_child, child = (int(first_line(each)[0]) for each in (other, command))
    command.kill()
    command.wait()
    wait_until(lambda: is_gone(child))
    assert not is_gone(others_child)
    other.terminate()
    assert other.wait(PATIENT_SECONDS) == 7


def test_a_killed_server_takes_all_runs_along(home: Path) -> None:
    with server_of(home) as server:
        command = ask(home, "wait")
        child = int(first_line(command)[0])
        server.kill()
        assert command.wait(PATIENT_SECONDS) == -signal.SIGKILL
        wait_until(lambda: is_gone(child))


def test_a_stopped_server_lets_the_runs_end(home: Path) -> None:
    with server_of(home) as server:
        command = ask(home, "wait")
        first_line(command)
        server.terminate()
        assert command.wait(PATIENT_SECONDS) == 7
        assert server.wait(PATIENT_SECONDS) == 0


def test_a_server_with_two_threads_forks_no_run(home: Path) -> None:
    with server_of(home, ONE_MORE_THREAD):
        command = ask(home, "exit")
        assert int(first_line(command)[0]) == command.pid
        assert command.wait(PATIENT_SECONDS) == 3


def test_a_run_without_a_server_is_a_new_process(home: Path) -> None:
    command = ask(home, "exit")
    assert int(first_line(command)[0]) == command.pid


def test_the_server_ends_after_the_last_run_once_the_code_has_changed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = home / "code"
    code.touch()
    monkeypatch.setenv("CODE", str(code))
    with server_of(home, WATCHED_CODE) as server:
        forked = ask(home, "wait")
        assert int(first_line(forked)[0]) != forked.pid
        os.utime(code, (1, 1))
        later = ask(home, "exit")
        assert int(first_line(later)[0]) == later.pid
        assert server.poll() is None
        forked.terminate()
        assert server.wait(PATIENT_SECONDS) == 0


def test_the_home_variable_is_that_of_the_settings() -> None:
    assert run_engine.HOME_VARIABLE == HOME_VARIABLE


def test_libraries_that_start_threads_are_left_to_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "threaded_library.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with fork_server._hidden(["threaded_library", "json"]):
        assert importlib.import_module("json").dumps(1) == "1"
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("threaded_library")
    importlib.import_module("threaded_library")
