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

def run_module(module, *arguments, has_settings):
    os.environ["HAS_SETTINGS"] = str(has_settings)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

fork_server.run_module = run_module
lock = open(os.devnull)
log = Path(sys.argv[1])

def start(*arguments, **variables):
    with log.open("ab") as output:
        return forks.Fork(("a_part", *arguments), {"OF_THE_PART": "set", **variables}, output)
"""
PART = """
import atexit, os, sys, threading, time
atexit.register(print, "closed", flush=True)
print("session", os.getsid(0) == os.getpid(), "files", sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
print("variable", os.environ["OF_THE_PART"], "code", os.environ.get("OPENBLAS_NUM_THREADS"), flush=True)
if sys.argv[1] == "ends":
    threading.Thread(target=lambda: (time.sleep(0.05), print("thread ended", flush=True))).start()
    sys.exit(3)
if sys.argv[1] == "tells":
    print("has settings", os.environ["HAS_SETTINGS"])
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
    # words and ends of lines of both may be mixed
    while log.read_text(encoding="utf-8").count("closed") < 2:
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)
    assert log.read_text(encoding="utf-8").count("orphaned") == 2


def test_a_part_reads_the_settings_of_prefect_where_its_variables_differ(tmp_path: Path) -> None:
    script = """
forks._READ_WITH.update(forks._of_prefect(os.environ))
start("tells").wait(60)
start("tells", PREFECT_SERVER_ANALYTICS_ENABLED="false").wait(60)
"""
    ended = supervised(tmp_path, script)
    assert ended.returncode == 0, ended.stderr
    log = (tmp_path / "part.log").read_text(encoding="utf-8").splitlines()
    assert [line for line in log if line.startswith("has settings")] == [
        "has settings True",
        "has settings False",
    ]


def test_a_supervisor_without_the_files_of_its_libraries_works_on(tmp_path: Path) -> None:
    script = """
import numpy as np
from numpy.linalg import inv

def mapped():
    [line] = [each for each in Path("/proc/self/status").read_text().splitlines() if "RssFile" in each]
    return int(line.split()[1])

matrix = np.diag([2.0, 4.0])
before = inv(matrix)
pages = mapped()
forks.release_library_pages()
print(mapped() < pages / 2, np.array_equal(inv(matrix), before), start("ends").wait(60))
"""
    ended = supervised(tmp_path, script)
    assert ended.stdout == "True True 3\n", ended.stderr
