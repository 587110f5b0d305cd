"""Supervisor of a few processes: starts the parts in order, restarts dead parts, leaves no process behind.

Each part leads a process group, so that its children end with the part. A janitor ends the groups when the
supervisor itself is killed.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

from clm_core.platform.interpreter import MODULE
from clm_core.platform.stack_state import PartState, PartStatus
from deployments import janitor

PAUSE_SECONDS = 0.1
LEFTOVER_SECONDS = 10.0
"""Time for the children of a dead part to end by themselves: a flow run reports its end."""
FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 60.0
STABLE_SECONDS = 60.0
"""Running time after which the restart delay is reset."""
STOP_SECONDS = 15.0
PROBE_SECONDS = 15.0
"""Time between two liveness probes of a ready part."""
SILENT_SECONDS = 180.0
"""Time without an answer after which a part counts as hung and is killed."""

Report = Callable[[PartState], None]
"""Callback for every change of a part's state."""


@dataclass(frozen=True)
class StackPart:
    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    """Environment variables in addition to the supervisor's."""
    is_ready: Callable[[], bool]
    """Quick readiness probe, called repeatedly until True."""
    is_alive: Callable[[], bool] | None = None
    """Liveness probe of a ready part, if any."""
    fork: Callable[[IO[bytes]], "PartProcess"] | None = None
    """Starts the part as a fork, with a file for the output; a restart is the command, since
    the code may have changed."""


class PartProcess(Protocol):
    """Leader of a process group: the part of `subprocess.Popen` in use by a supervisor."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class Stopped(BaseException):
    """The process received a signal to stop."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, SIGHUP and Ctrl-C raise Stopped inside the block, once; further signals are ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    before = [(number, signal.signal(number, stop)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


class Supervisor:
    """Context manager that keeps the started parts running for the duration of the block."""

    def __init__(self, logs: Path, report: Report) -> None:
        self._logs = logs
        self._report = report
        self._parts: list[_RunningPart] = []

    def __enter__(self) -> "Supervisor":
        self._logs.mkdir(parents=True, exist_ok=True)
        self._janitor = subprocess.Popen(
            [*MODULE, "deployments.janitor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=(self._logs / "janitor.log").open("w"),
            start_new_session=True,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        # a part may need the parts started before to end well
        for part in reversed(self._parts):
            part.stop()
        self._notify_janitor("done")
        self._janitor.communicate()

    def start(self, part: StackPart) -> None:
        self._parts.append(
            _RunningPart(part, self._logs / f"{part.name}.log", self._report, self._notify_janitor)
        )

    def wait_until_ready(self, names: Sequence[str], seconds: float) -> list[str]:
        """Names of the parts still not ready after the time limit."""
        deadline = time.monotonic() + seconds
        while missing := [part.name for part in self._parts if part.name in names and not part.ready]:
            if time.monotonic() > deadline:
                return missing
            self.check_parts()
        return []

    def check_parts(self) -> None:
        """Restarts dead parts; to be called in a loop."""
        for part in self._parts:
            part.check()
        time.sleep(PAUSE_SECONDS)

    @property
    def states(self) -> tuple[PartState, ...]:
        return tuple(part.state for part in self._parts)

    def _notify_janitor(self, line: str) -> None:
        assert self._janitor.stdin is not None
        # a missing janitor matters only if the supervisor is killed
        with contextlib.suppress(BrokenPipeError):
            self._janitor.stdin.write(f"{line}\n")
            self._janitor.stdin.flush()


class _RunningPart:
    """Part with its current process."""

    def __init__(
        self, part: StackPart, log: Path, report: Report, notify_janitor: Callable[[str], None]
    ) -> None:
        self._part = part
        self._report = report
        self._notify_janitor = notify_janitor
        self._delay = FIRST_DELAY_SECONDS
        self.state = PartState(name=part.name, status=PartStatus.STARTING, log=log)
        log.unlink(missing_ok=True)
        self._launch()

    @property
    def name(self) -> str:
        return self._part.name

    @property
    def ready(self) -> bool:
        return self.state.status is PartStatus.READY

    def check(self) -> None:
        if self.state.status is PartStatus.RESTARTING:
            self._restart_when_due()
        elif self._process.poll() is not None:
            self._handle_exit()
        elif not self.ready:
            if self._part.is_ready():
                self._change(status=PartStatus.READY)
        elif self._is_hung():
            # a hung part would not react to SIGTERM
            self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        janitor.end({self._process.pid}, LEFTOVER_SECONDS)
        self._process.wait()
        self._notify_janitor(f"-{self._process.pid}")
        self._change(status=PartStatus.STOPPED, pid=None)

    def _launch(self, restarts: int = 0) -> None:
        fork = self._part.fork
        with self.state.log.open("ab") as output:
            self._process = self._command(output) if fork is None or restarts else fork(output)
        self._started = self._probed = time.monotonic()
        self._unanswered = 0
        self._notify_janitor(f"+{self._process.pid}")
        self._change(status=PartStatus.STARTING, pid=self._process.pid, restarts=restarts)

    def _command(self, output: IO[bytes]) -> "PartProcess":
        return subprocess.Popen(
            self._part.command,
            env=os.environ | self._part.environment,
            # some parts end when the pipe closes
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _handle_exit(self) -> None:
        """Schedules the restart of a dead part, after its children have ended."""
        now = time.monotonic()
        if now - self._started > STABLE_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        self._due = now + self._delay
        self._leftovers_until = max(self._due, now + LEFTOVER_SECONDS)
        self._delay = min(2 * self._delay, MAX_DELAY_SECONDS)
        self._signal(signal.SIGTERM)
        hung = self._silent_seconds >= SILENT_SECONDS
        cause = f"no answer for {SILENT_SECONDS:g} s" if hung else _exit_in_words(self._process.wait())
        self._change(status=PartStatus.RESTARTING, pid=None, last_exit=cause)

    def _is_hung(self) -> bool:
        """True after too many failed probes, counted because a paused supervisor does not probe."""
        now = time.monotonic()
        if self._part.is_alive is None or now < self._probed + PROBE_SECONDS:
            return False
        self._unanswered = 0 if self._part.is_alive() else self._unanswered + 1
        self._probed = time.monotonic()
        return self._silent_seconds >= SILENT_SECONDS

    @property
    def _silent_seconds(self) -> float:
        return self._unanswered * PROBE_SECONDS

    def _restart_when_due(self) -> None:
        now = time.monotonic()
        if now < self._due or (janitor.alive(self._process.pid) and now < self._leftovers_until):
            return
        janitor.end({self._process.pid}, grace_seconds=0)
        self._notify_janitor(f"-{self._process.pid}")
        self._launch(restarts=self.state.restarts + 1)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _change(self, **changes: Any) -> None:
        self.state = self.state.model_copy(update=changes)
        self._report(self.state)


def _exit_in_words(returncode: int) -> str:
    return f"code {returncode}" if returncode >= 0 else signal.Signals(-returncode).name
