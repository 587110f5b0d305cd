"""Places of a training: the process of the run, a subprocess, or a pod in Kubernetes.

Every place takes the same folder (see `training`). A training in another process or pod is followed by its
messages, and ends at the time limit, with its caller, and when the caller is interrupted.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clm_core.domain.errors import TrainingFailed
from clm_core.domain.progress import Announce
from clm_core.domain.training_settings import TrainingPlace, TrainingSettings
from clm_core.platform import run_engine, tracing
from clm_core.platform.interpreter import MODULE
from clm_core.retraining import training
from clm_core.retraining.training_following import LOG_TAIL, TrainingTask, follow

LOG = "training.log"
PAUSE_SECONDS = 0.05
"""Time between two looks at a subprocess."""
KILLED_WITHIN_SECONDS = 10.0
"""Longest wait for the end of a killed fork."""


def run(task: TrainingTask, settings: TrainingSettings, announce: Announce) -> None:
    """Train at the place of the settings; the folder has the results afterwards.

    Raises:
        TrainingFailed: the training exceeded its time limit, or its process or pod died.
        CLMError: the error raised by the training, or the reason why the place cannot be used.
    """
    match settings.where:
        case TrainingPlace.INLINE:
            training.train(task.spec, task.bars, task.folder, announce, task.cache)
        case TrainingPlace.SUBPROCESS:
            train_in_subprocess(task, announce, settings.limit_seconds)
        case TrainingPlace.KUBERNETES:
            from clm_core.retraining.training_pods import train_in_pod

            train_in_pod(task, settings, announce)


def train_in_subprocess(task: TrainingTask, announce: Announce, limit_seconds: float) -> None:
    """Train in a subprocess, which ends at the time limit, or when the caller is interrupted or dies.

    Raises:
        TrainingFailed: the subprocess exceeded the limit, or died; carries the end of the subprocess's log.
        CLMError: the error raised by the training.
    """
    training.clear_results(task.folder)
    training.write_input(task.spec, task.bars, task.folder)
    with subprocess_of(task) as process:
        follow(process, task.folder, announce, limit_seconds)


@dataclass
class ForkedTraining:
    """A training in a fork of the fork server of `clm up`, which dies with its caller."""

    connection: socket.socket
    log: Path
    has_begun: bool = True
    _status: bytes | None = None

    def failure(self) -> TrainingFailed | None:
        if self._status is None and not self._has_news(0.0):
            return None
        if self._status is None:
            self._status = run_engine.received_end(self.connection)
        code = run_engine.exit_code(self._status)
        return died(_cause(code, self.log), self.log.read_text(errors="replace"))

    def pause(self) -> None:
        self._has_news(PAUSE_SECONDS)

    def kill(self) -> None:
        """End the process, unless it has ended, and wait for the end."""
        with contextlib.suppress(OSError), self.connection:
            if self._status is None:
                self.connection.send(bytes([signal.SIGKILL]))
                self.connection.settimeout(KILLED_WITHIN_SECONDS)
                self._status = run_engine.received_end(self.connection)

    def _has_news(self, seconds: float) -> bool:
        return bool(select.select([self.connection], [], [], seconds)[0])


@dataclass(frozen=True)
class TrainingSubprocess:
    """A training in a subprocess, which dies with its parent."""

    process: subprocess.Popen[bytes]
    log: Path
    has_begun: bool = True

    def failure(self) -> TrainingFailed | None:
        code = self.process.poll()
        return None if code is None else died(_cause(code, self.log), self.log.read_text(errors="replace"))

    def pause(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PAUSE_SECONDS)


@contextlib.contextmanager
def subprocess_of(task: TrainingTask) -> "Iterator[TrainingSubprocess | ForkedTraining]":
    """A subprocess that trains in a folder with input, killed at the end of the block.

    Under `clm up` the subprocess is a fork, which has the libraries imported.
    """
    log = task.folder / LOG
    module = "clm_core.retraining.training"
    environment = os.environ | tracing.variables()
    with log.open("wb") as output, _pipe() as (reading, _):
        files = (reading, output.fileno(), output.fileno())
        connection = run_engine.fork(
            os.environ.get(run_engine.HOME_VARIABLE), module, task.arguments(), environment, files
        )
        if connection is not None:
            forked = ForkedTraining(connection, log)
            try:
                yield forked
            finally:
                forked.kill()
            return
    with (
        log.open("wb") as output,
        # in its own session: Ctrl-C in a terminal reaches the caller only
        subprocess.Popen(
            [*MODULE, module, *task.arguments()],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=environment,
        ) as process,
    ):
        try:
            yield TrainingSubprocess(process, log)
        finally:
            process.kill()


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Descriptors to read from and to write to, closed at the end of the block."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def died(cause: str, written: str) -> TrainingFailed:
    """Error of a training that ended without a message.

    Args:
        written: end of the training's log.
    """
    error = TrainingFailed(f"the training process died: {cause}")
    error.add_note(written[-LOG_TAIL:])
    return error


def _cause(code: int, log: Path) -> str:
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    if code < 0 and not last:
        return f"killed by signal {-code}; the system sends it when memory runs out"
    return f"exit code {code}: {' '.join(last)}"
