"""Workers that compute folds: the protocol, and processes of this machine.

A worker receives bars and parameters and returns positions. Workers open no database and record nothing, so
a killed worker leaves no trace and its fold can be computed again.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

from clm_core.market.bars import Floats
from clm_core.search.folds import FoldTask, SharedInputs, run_fold


@dataclass(frozen=True)
class Failure:
    """A fold without positions."""

    cause: str
    lost: bool
    """True if the worker died: another attempt may succeed."""


class Workers(Protocol):
    """Workers for up to `count` folds at a time."""

    @property
    def count(self) -> int: ...

    def submit(self, fold_task: FoldTask) -> Future[Floats]: ...

    def result(self, future: Future[Floats]) -> Floats | Failure:
        """The result of a completed future; frees the worker for the next fold."""
        ...


@contextlib.contextmanager
def local_workers(count: int | None, shared_inputs: SharedInputs) -> Iterator["LocalWorkers"]:
    """Processes that end with this process, even after SIGKILL.

    Args:
        count: number of processes; None for one per processor.
    """
    spawn = multiprocessing.get_context("spawn")
    leash, ours = spawn.Pipe(duplex=False)
    with leash:
        try:
            yield LocalWorkers(count or os.cpu_count() or 1, shared_inputs, leash)
        finally:
            ours.close()


class LocalWorkers:
    """A process pool per worker: a killed process breaks only its own pool, and loses only its own fold."""

    def __init__(self, count: int, shared_inputs: SharedInputs, leash: Connection) -> None:
        self.count = count
        self._shared_inputs = shared_inputs
        self._leash = leash
        self._free = [self._new_pool() for _ in range(count)]
        self._busy: dict[Future[Floats], ProcessPoolExecutor] = {}

    def submit(self, fold_task: FoldTask) -> Future[Floats]:
        pool = self._free.pop()
        try:
            future = pool.submit(_run, fold_task)
        except BrokenProcessPool:
            # the process was killed while idle
            pool = self._new_pool()
            future = pool.submit(_run, fold_task)
        self._busy[future] = pool
        return future

    def result(self, future: Future[Floats]) -> Floats | Failure:
        pool = self._busy.pop(future)
        error = future.exception()
        lost = isinstance(error, BrokenProcessPool)
        self._free.append(self._new_pool() if lost else pool)
        return future.result() if error is None else Failure(error_line(error), lost)

    def _new_pool(self) -> ProcessPoolExecutor:
        """A pool whose process starts with the first fold."""
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(
            1, mp_context=spawn, initializer=_begin, initargs=(self._shared_inputs, self._leash)
        )


def error_line(error: BaseException) -> str:
    """Type and message of an error, on one line."""
    return f"{type(error).__name__}: {error}"


_shared_inputs: SharedInputs | None = None


def _begin(shared_inputs: SharedInputs, leash: Connection) -> None:
    global _shared_inputs  # noqa: PLW0603 - a pool's process has no other place for its initial arguments
    _shared_inputs = shared_inputs
    end_with_parent(leash)


def end_with_parent(leash: Connection) -> None:
    """Leave Ctrl-C to the parent process, and end with it."""
    # Ctrl-C reaches every process of a terminal: the parent process decides when the workers stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(leash,), daemon=True).start()


def _end_with(leash: Connection) -> None:
    """End this process when the parent closes the other end of the pipe, or dies."""
    with contextlib.suppress(EOFError):
        leash.recv_bytes()
    os._exit(1)


def _run(fold_task: FoldTask) -> Floats:
    assert _shared_inputs is not None
    return run_fold(_shared_inputs, fold_task)
