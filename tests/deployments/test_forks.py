"""Parts of `clm up` as forks: processes of their own, with the libraries of the supervisor alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import PATIENT_SECONDS

from deployments import fork_server

pytestmark = pytest.mark.skipif(not fork_server.is_supported(), reason="forks are used on Linux")

# without the settings of Prefect, whose import takes a second
SUPERVISOR = """
import os, runpy, signal, sys, threading
from pathlib import Path
from deployments import fork_server, forks

def run_module(module, *arguments):
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

fork_server.run_module = run_module
lock = open(os.devnull)
log = Path(sys.argv[1])

def start(*arguments):
    with log.open("ab") as output:
        return forks.Fork(("a_part", *arguments), {"OF_THE_PART": "set"}, output)
"""
PART = """
import atexit, os, sys, threading, time
atexit.register(print, "closed", flush=True)
print("session", os.getsid(0) == os.getpid(), "files", sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
print("variable", os.environ["OF_THE_PART"], "code", os.environ.get("OPENBLAS_NUM_THREADS"), flush=True)
if sys.argv[1] == "ends":
    threading.Thread(target=lambda: (time.sleep(0.05), print("thread ended", flush=True))).start()
    sys.exit(3)
if sys.argv[1] == "complains":
    sys.exit("no such port")
if sys.argv[1] == "serves":
    sys.stdin.buffer.read()
    print("orphaned", flush=True)
"""


def supervised(folder: Path, script: str) -> "subprocess.CompletedProcess[str]":
    """A supervisor at the end of a script."""
    (folder / "a_part.py").write_text(PART, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-c", SUPERVISOR + script, str(folder / "part.log")],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=PATIENT_SECONDS,
        check=False,
    )


def test_a_part_ends_as_its_module_ends(tmp_path: Path) -> None:
    script = """
print([start(each).wait(60) for each in ("ends", "complains")])
part = start("serves")
os.killpg(part.pid, signal.SIGTERM)
print(part.wait(60), part.poll())
"""
    ended = supervised(tmp_path, script)
    assert ended.stdout.splitlines() == ["[3, 1]", f"{-signal.SIGTERM} {-signal.SIGTERM}"], ended.stderr
    log = (tmp_path / "part.log").read_text(encoding="utf-8")
    # neither the lock of the supervisor nor the pipe of another part; threads and exits as of any process
    assert log.startswith("session True files [0, 1, 2]\nvariable set code None\nthread ended\nclosed\n")
    assert "no such port\nclosed\n" in log


def test_each_part_sees_the_end_of_a_killed_supervisor(tmp_path: Path) -> None:
    script = 'parts = [start("serves"), start("serves")]; os.kill(os.getpid(), signal.SIGKILL)'
    assert supervised(tmp_path, script).returncode == -signal.SIGKILL
    log = tmp_path / "part.log"
    deadline = time.monotonic() + PATIENT_SECONDS
    # the lines of both may be mixed
    while log.read_text(encoding="utf-8").count("closed\n") < 2:
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)
    assert log.read_text(encoding="utf-8").count("orphaned\n") == 2
