"""Fork server of `clm up`: forks a process with everything imported for flow runs, trainings and maintenance.

A new Python process spends seconds on the imports of Prefect, MLflow and pandas before a run begins; a fork
begins at once. A child has the environment, the folder and the output of the worker's command
(`run_engine`). Modules are shared and settings read anew.

- A fork copies one thread. The server has a single thread, verified at each fork; libraries start their
  threads in the child.
- A child ends with the command and with the server.
- After a change of the installed code the server refuses requests and ends with its last child. The
  supervisor starts a new server.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_core.platform.compiled_code import load_compiled_once
from clm_core.platform.garbage_collection import collect_garbage_rarely
from clm_core.platform.interpreter import ONE_BLAS_THREAD
from clm_core.platform.private_files import keep_files_private
from clm_core.platform.run_engine import ENDED_BYTES, FORKED, HOME_VARIABLE, SOCKET
from deployments.supervisor import Stopped, stoppable

# without the threads that the libraries would start when they are loaded
ENVIRONMENT = ONE_BLAS_THREAD | {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Variables of the server itself; a child has those of its worker."""
PACKAGES = ("clm_core", "flows", "tasks", "deployments")
PRELOADED = (
    "prefect.flow_engine",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "xgboost",
    "lightgbm",
    "plotly.graph_objects",
    "jinja2",
    "PIL.Image",
    "PIL.ImageDraw",
    "PIL.ImageFont",
    "talib",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.tracing.processor.base_mlflow",
)
"""Modules that most runs import, beside those of the flows."""
HIDDEN = ("polars", "sklearn")
"""Libraries that others import where installed, and do without; a run that needs them imports them.

polars has threads from its import on, which a fork would lack. scikit-learn takes 40 MB, for the interface of
XGBoost and LightGBM to it (`market.whole_libraries`)."""
BACKLOG = 64
REQUEST_SECONDS = 10.0
"""Longest wait for the rest of a request."""
END_SECONDS = 10.0
"""Time for the children to report their end when the server is stopped."""
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
M_ARENA_MAX = -8
ARENAS = 2
"""Arenas of glibc's allocator: with one a thread, by default, every pool of threads keeps freed memory."""
Code = Mapping[str, int]


@dataclass(frozen=True)
class Request:
    """Request for a process, with the connection to the worker's command."""

    connection: socket.socket
    module: str
    """Module to run, as by `python -m`."""
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    outputs: tuple[int, ...]
    """File descriptors of standard input, output and error."""


@dataclass
class ForkServer:
    """Listens in a home and forks; a single thread."""

    listener: socket.socket
    code: Code
    """Times of the last change of every source file at the start."""
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    children: dict[int, socket.socket] = field(default_factory=dict)
    """Connection of the worker's command, by the descriptor of the child's process."""
    is_renewed: bool = False
    """True once the code has changed: requests are refused, and the server ends with the last child."""

    def serve(self) -> Request | None:
        """Fork until stopped or renewed: the request to carry out in a child, None in the server."""
        self.selector.register(self.listener, selectors.EVENT_READ)
        while self.children or not self.is_renewed:
            for key, _ in self.selector.select():
                if key.fd not in self.selector.get_map():
                    continue  # unregistered by an event before
                if key.fileobj is self.listener:
                    request = self._accepted()
                    if request is not None and self._fork(request):
                        return request
                elif isinstance(key.fileobj, socket.socket):
                    self._pass_on(key.fileobj, key.data)
                else:
                    self._report_end(key.data)
        return None

    def end_children(self) -> None:
        """Pass SIGTERM on to the children, and wait for their end for a while."""
        self.selector.unregister(self.listener)
        for child in self.children:
            _signal(child, signal.SIGTERM)
        while self.children and (events := self.selector.select(END_SECONDS)):
            for key, _ in events:
                if not isinstance(key.fileobj, socket.socket):
                    self._report_end(key.data)

    def _accepted(self) -> Request | None:
        """The next request; None without a request, and where a process must not be forked."""
        connection, _ = self.listener.accept()
        connection.settimeout(REQUEST_SECONDS)
        problem = self._problem()
        if problem:
            print(problem, file=sys.stderr, flush=True)
        else:
            with contextlib.suppress(OSError, ValueError):
                return _read(connection)
        connection.close()
        return None

    def _problem(self) -> str:
        if self.is_renewed or self.code != code_times():
            self.is_renewed = True
            return "The code has changed: this process ends with the last run."
        threads = os.listdir("/proc/self/task")
        return "" if len(threads) == 1 else f"No fork with {len(threads)} threads: see {PRELOADED}."

    def _fork(self, request: Request) -> bool:
        """True in the child."""
        server = os.getpid()
        child = os.fork()
        if child == 0:
            self._leave(request, server)
            return True
        for descriptor in request.outputs:
            os.close(descriptor)
        process = os.pidfd_open(child)
        self.children[process] = request.connection
        self.selector.register(process, selectors.EVENT_READ, process)
        self.selector.register(request.connection, selectors.EVENT_READ, process)
        with contextlib.suppress(OSError):
            request.connection.sendall(FORKED)
        return False

    def _leave(self, request: Request, server: int) -> None:
        """Close in a child whatever belongs to the server."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
        self.selector.close()
        self.listener.close()
        request.connection.close()
        for process, connection in self.children.items():
            os.close(process)
            connection.close()

    def _pass_on(self, connection: socket.socket, child: int) -> None:
        """Pass the signals of the command on to the child; kill the child of a killed command."""
        try:
            signals = connection.recv(16)
        except OSError:
            signals = b""
        for number in signals or bytes([signal.SIGKILL]):
            _signal(child, number)
        if not signals:
            self.selector.unregister(connection)

    def _report_end(self, child: int) -> None:
        ended = os.waitid(os.P_PIDFD, child, os.WEXITED)
        assert ended is not None
        connection = self.children.pop(child)
        self.selector.unregister(child)
        with contextlib.suppress(KeyError):
            self.selector.unregister(connection)
        os.close(child)
        exited = ended.si_code == os.CLD_EXITED
        status = ended.si_status << 8 if exited else ended.si_status
        with contextlib.suppress(OSError):
            connection.sendall(status.to_bytes(ENDED_BYTES, "big", signed=True))
        connection.close()


def is_supported() -> bool:
    """True on Linux; elsewhere libraries do not survive a fork, and each run is a new Python process."""
    return sys.platform == "linux"


def preload(*others: str) -> None:
    """Import the flows, the libraries of most runs, and other modules, and load their compiled code."""
    with _hidden(HIDDEN):
        flows = importlib.import_module("flows")
        for module in pkgutil.iter_modules(flows.__path__, "flows."):
            importlib.import_module(module.name)
        for name in (*PRELOADED, *others):
            # a library of an extra may be missing
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)
    # half a second of processor time in each run otherwise
    load_compiled_once("clm_core")
    gc.collect()
    gc.freeze()


def code_times() -> Code:
    """Time of the last change, in nanoseconds, of every source file of ours and of the folder of packages."""
    folders = (Path(str(importlib.import_module(name).__file__)).parent for name in PACKAGES)
    files = (file for folder in folders for file in folder.rglob("*.py"))
    libraries = Path(sysconfig.get_path("purelib"))
    return {str(path): path.stat().st_mtime_ns for path in (*files, libraries)}


@contextlib.contextmanager
def listening(home: Path) -> Iterator[socket.socket]:
    """Socket in a home; a socket left by a killed server is replaced."""
    path = home / SOCKET
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path.name)
        listener.listen(BACKLOG)
        yield listener


@contextlib.contextmanager
def _hidden(names: Sequence[str]) -> Iterator[None]:
    """Let imports of libraries not imported yet fail for the time of the block, as if they were missing."""
    hidden = {name: None for name in names if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def carry_out(request: Request) -> None:
    """Run the module of a request in the requested environment, to the end."""
    for number, descriptor in enumerate(request.outputs):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    run_module(request.module, *request.arguments)


def run_module(module: str, *arguments: str, has_settings: bool = False) -> None:
    """Run a module in a fork, as by `python -m`.

    Args:
        has_settings: True where the parent has read Prefect's settings of the fork. Reading copies 8 MB of
            shared pages.
    """
    library = ctypes.CDLL(None)
    library.mallopt(M_ARENA_MAX, ARENAS)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if not has_settings:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
    sys.argv = [module, *arguments]
    # a module imported before the fork is executed once more, as a program
    warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
    # for `ps` and `top`, which would show the name of the parent
    library.prctl(PR_SET_NAME, module.rpartition(".")[2].encode())
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _read(connection: socket.socket) -> Request | None:
    length, outputs, _, _ = socket.recv_fds(connection, 4, 3)
    remaining = int.from_bytes(length, "big")
    content = bytearray()
    while remaining > len(content) and (part := connection.recv(remaining - len(content))):
        content += part
    # a probe connects and sends nothing
    if len(outputs) != 3 or not content:
        for descriptor in outputs:
            os.close(descriptor)
        connection.close()
        return None
    request: dict[str, Any] = json.loads(content)
    connection.settimeout(None)
    return Request(
        connection,
        request["module"],
        # a command of the release before names none
        tuple(request.get("arguments", ())),
        request["environment"],
        request["folder"],
        tuple(outputs),
    )


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, number)


def main() -> Request | None:
    """Serve; the request to carry out in a child, None in the server."""
    home = Path(os.environ[HOME_VARIABLE])
    code = code_times()
    preload()
    with listening(home) as listener:
        server = ForkServer(listener, code)
        try:
            with stoppable():
                return server.serve()
        except Stopped:
            server.end_children()
    return None


if __name__ == "__main__":
    collect_garbage_rarely()
    keep_files_private()
    if (run := main()) is not None:
        carry_out(run)
