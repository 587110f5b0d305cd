"""Commands of `clm` as forks of one process that has imported what most commands import.

A command spends a second of processor time on imports, a fork a tenth. A fork has the environment and the
folder of the command, and ends as the process of a command does.
"""

import atexit
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from deployments.fork_server import ENVIRONMENT, is_supported

CLM = Path(sys.executable).with_name("clm")
SINGLE_THREADED = ENVIRONMENT | {"MLFLOW_DISABLE_TELEMETRY": "true"}
one_at_a_time = threading.Lock()


def run_clm(
    words: Sequence[str], environment: Mapping[str, str], timeout: float, folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Result of a command typed in a folder, by default the current folder.

    Raises:
        subprocess.TimeoutExpired: the command and the processes of its session were killed.
    """
    command = [str(CLM), *words]
    if not is_supported():
        return subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False
        )
    with one_at_a_time, tempfile.TemporaryDirectory() as outputs:
        process = forking_process()
        assert process.stdin is not None
        assert process.stdout is not None
        request = {
            "words": command,
            "environment": dict(environment),
            "folder": str(folder or Path.cwd()),
            "outputs": outputs,
        }
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], timeout)[0]:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            forking_process.cache_clear()
            raise subprocess.TimeoutExpired(command, timeout)
        code = os.waitstatus_to_exitcode(int(process.stdout.readline()))
        out, err = (Path(outputs, name).read_text() for name in ("1", "2"))
        return subprocess.CompletedProcess(command, code, out, err)


@cache
def forking_process() -> "subprocess.Popen[str]":
    """The process that forks, which ends with the test process."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CLM_", "PREFECT_"))}
    process = subprocess.Popen(
        [sys.executable, __file__],
        env=own | SINGLE_THREADED,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atexit.register(_end, process)
    return process


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()


def fork_for_each_request() -> dict[str, Any] | None:
    """Fork for each line of standard input; the request to carry out in a child, None in the parent."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            request: dict[str, Any] = json.loads(line)
            return request
        print(os.waitpid(child, 0)[1], flush=True)
    return None


def carry_out(request: dict[str, Any]) -> None:
    from clm_core.cli.app import main

    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for number in (1, 2):
        output = os.open(Path(request["outputs"], str(number)), os.O_WRONLY | os.O_CREAT)
        os.dup2(output, number)
        os.close(output)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = request["words"]
    main()


def import_libraries() -> None:
    import mlflow  # noqa: F401

    import clm_core.cli.app
    import clm_core.services  # noqa: F401

    # else each fork would examine all modules at its end, a second
    gc.collect()
    gc.freeze()
    # a fork copies one thread
    assert len(os.listdir("/proc/self/task")) == 1


if __name__ == "__main__":
    import_libraries()
    if (request_of_child := fork_for_each_request()) is not None:
        carry_out(request_of_child)
