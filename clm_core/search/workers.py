"""Who computes folds: processes of this machine, or a Ray cluster.

A worker is handed bars and parameters, and hands back positions. It opens no database and records nothing:
one that is killed has done nothing, and its fold is computed again.
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

from clm_core.domain.tuning import Engine, TuneRequest
from clm_core.market.bars import Floats
from clm_core.search.folds import FoldTask, SharedInputs, run_fold


@dataclass(frozen=True)
class Failure:
    """A fold that gave no positions."""

    cause: str
    lost: bool
    """Whether its worker died, so that it is worth another try."""


class Workers(Protocol):
    """Any number of folds at a time, up to `count`."""

    @property
    def count(self) -> int: ...

    def submit(self, fold: FoldTask) -> Future[Floats]: ...

    def result(self, future: Future[Floats]) -> Floats | Failure:
        """Of a future that is done; its worker is free again."""
        ...


@contextlib.contextmanager
def open_workers(request: TuneRequest, work: SharedInputs) -> Iterator[Workers]:
    """Ready to work for as long as the block lasts; what they do at its end is thrown away.

    Raises:
        MissingExtra: Ray is asked for and not installed.
        ServerUnavailable: Ray is asked for and does not answer.
    """
    if request.on is Engine.RAY:
        from clm_core.search.ray_workers import ray_workers

        with ray_workers(request.ray_address, request.workers, work) as cluster:
            yield cluster
    else:
        with local_workers(request.workers or os.cpu_count() or 1, work) as processes:
            yield processes


@contextlib.contextmanager
def local_workers(count: int, work: SharedInputs) -> Iterator["LocalWorkers"]:
    """Processes that end with this one, however it ends."""
    spawn = multiprocessing.get_context("spawn")
    leash, ours = spawn.Pipe(duplex=False)
    with leash:
        try:
            yield LocalWorkers(count, work, leash)
        finally:
            ours.close()


class LocalWorkers:
    """A pool for each worker: one that is killed takes no other's fold along."""

    def __init__(self, count: int, work: SharedInputs, leash: Connection) -> None:
        self.count = count
        self._work, self._leash = work, leash
        self._free = [self._hired() for _ in range(count)]
        self._busy: dict[Future[Floats], ProcessPoolExecutor] = {}

    def submit(self, fold: FoldTask) -> Future[Floats]:
        worker = self._free.pop()
        try:
            future = worker.submit(_run, fold)
        except BrokenProcessPool:
            # it was killed while it had nothing to do
            worker = self._hired()
            future = worker.submit(_run, fold)
        self._busy[future] = worker
        return future

    def result(self, future: Future[Floats]) -> Floats | Failure:
        worker, error = self._busy.pop(future), future.exception()
        lost = isinstance(error, BrokenProcessPool)
        self._free.append(self._hired() if lost else worker)
        return future.result() if error is None else Failure(told(error), lost)

    def _hired(self) -> ProcessPoolExecutor:
        """Its process starts with the first fold."""
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(
            1, mp_context=spawn, initializer=_begin, initargs=(self._work, self._leash)
        )


def told(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}"


_given: SharedInputs | None = None


def _begin(work: SharedInputs, leash: Connection) -> None:
    global _given  # noqa: PLW0603 - what a pool's process is started with it can keep nowhere else
    _given = work
    # Ctrl-C reaches all processes of a terminal: the one that started this one decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(leash,), daemon=True).start()


def _end_with(leash: Connection) -> None:
    """The other end closes when whoever holds it lets go, or dies."""
    with contextlib.suppress(EOFError):
        leash.recv_bytes()
    os._exit(1)


def _run(fold: FoldTask) -> Floats:
    assert _given is not None
    return run_fold(_given, fold)
