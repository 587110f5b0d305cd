"""Servers and workers of `clm up` as forks of the supervisor: libraries are in memory once.

The supervisor imports the libraries while Prefect's server starts, and forks the other parts. A fork begins
at once, with the environment and the output of a command, and keeps none of the supervisor's files. A part
restarted later is a command, with the code of the moment.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import mmap
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

from deployments import fork_server

OF_PREFECT = (
    "prefect.client.orchestration",
    "prefect.server.schemas",
    "sqlalchemy.ext.asyncio",
    "alembic.command",
    "fastapi",
    "uvicorn",
)
"""Modules that Prefect's server shares with other parts."""
OF_PARTS = ("prefect.cli.worker", "prefect.workers.process", "starlette.middleware")
"""Modules of several parts, beside those of the runs."""
POLL_SECONDS = 0.05
LIBRARY_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[-x]p .*\.so[.0-9]*")
"""Mapping of a shared library that the process cannot write to, in `/proc/PID/smaps`."""
_READ_WITH = dict[str, str]()
"""Variables of Prefect in force while this process read Prefect's settings."""


def preload_prefect(environment: Mapping[str, str]) -> None:
    """Import the libraries that Prefect's server shares with others, before all else waits for the server.

    Args:
        environment: variables of the parts.
    """
    with _variables({**environment, **fork_server.ENVIRONMENT}):
        for name in OF_PREFECT:
            importlib.import_module(name)
        _read_settings()
    gc.collect()
    gc.freeze()


def _read_settings() -> None:
    """Read Prefect's settings from the variables of the moment, also where Prefect was imported before."""
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()
    _READ_WITH.update(_of_prefect(os.environ))


def preload(environment: Mapping[str, str]) -> None:
    """Import the libraries of several parts.

    Args:
        environment: variables of the parts; Prefect and MLflow read some during their import.
    """
    with _variables({**environment, **fork_server.ENVIRONMENT}):
        fork_server.preload(*OF_PARTS)


def release_library_pages() -> None:
    """Take the files of the libraries, which imports have read, out of the memory of this process.

    A page used again is read from the system's cache of files. Pages that this process has changed stay.
    """
    library = ctypes.CDLL(None)
    for start, length in _unchanged_library_pages():
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


def _unchanged_library_pages() -> Iterator[tuple[int, int]]:
    """Start and length in bytes of each read-only mapping of a shared library without a changed page."""
    start = 0
    end = 0
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if mapping := LIBRARY_MAPPING.fullmatch(line):
            start, end = (int(address, 16) for address in mapping.groups())
        elif line.startswith("VmFlags:"):
            start = 0
            end = 0
        elif line.split() == ["Anonymous:", "0", "kB"] and end > start:
            yield start, end - start


def _of_prefect(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("PREFECT_")}


def is_possible() -> bool:
    """True with the libraries loaded and a single thread: a fork copies one."""
    return "prefect" in sys.modules and fork_server.is_supported() and len(os.listdir("/proc/self/task")) == 1


class Fork:
    """Module in a fork, in a session of its own: `subprocess.Popen` without a command."""

    def __init__(self, module: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> None:
        """
        Args:
            module: name of the module and arguments, as after `python -m`.
            environment: additional variables.
            output: file of standard output and error.
        """
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        stdin, self._stdin = os.pipe()
        leads, leader = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(module, environment, stdin, output.fileno(), leader)
        os.close(stdin)
        os.close(leader)
        # a signal to the group must not come before the group
        os.read(leads, 1)
        os.close(leads)

    def poll(self) -> int | None:
        """Exit code, negative after a signal; None while the process lives."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
                os.close(self._stdin)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Exit code at the end of the process.

        Raises:
            subprocess.TimeoutExpired: the process still lives.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(POLL_SECONDS)
        return code


def _become(
    module: Sequence[str], environment: Mapping[str, str], stdin: int, output: int, leader: int
) -> NoReturn:
    """Run a module in a process just forked, and end the process."""
    code = 1
    try:
        os.setsid()
        os.write(leader, b"+")
        for number, file in enumerate((stdin, output, output)):
            os.dup2(file, number)
        _close_inherited()
        os.environ.update(environment)
        fork_server.run_module(*module, has_settings=_of_prefect(os.environ) == _READ_WITH)
        code = 0
    except SystemExit as ended:
        code = _exit_code(ended)
    except BaseException:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
    finally:
        # the frames of the supervisor stay: no block of them ends in this process
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _close_inherited() -> None:
    """Close the locks and pipes of the supervisor and of other parts.

    The limit of open files, up to which `os.closerange` would try, is a thousand million in some containers.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            # the folder itself was open while it was listed
            with contextlib.suppress(OSError):
                os.close(int(name))


def _exit_code(ended: SystemExit) -> int:
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    print(ended.code, file=sys.stderr)
    return 1


@contextlib.contextmanager
def _variables(environment: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the time of a block."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
