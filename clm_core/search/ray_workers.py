"""Folds on the machines of a Ray cluster: each needs this release installed, and no way to our database."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from clm_core.domain.errors import MissingExtra, ServerUnavailable
from clm_core.market.bars import Floats
from clm_core.search.folds import FoldTask, SharedInputs, run_fold
from clm_core.search.workers import Failure, told

AUTO = "auto"
"""The cluster that was started last on this machine."""
ANSWERS_WITHIN_SECONDS = 10


@contextlib.contextmanager
def ray_workers(address: str | None, count: int | None, work: SharedInputs) -> Iterator["RayWorkers"]:
    """A connection to a cluster that runs; with RAY_AUTH_MODE=token it is opened with the token of
    RAY_AUTH_TOKEN, of the file RAY_AUTH_TOKEN_PATH, or of ~/.ray/auth_token.

    Raises:
        MissingExtra: Ray is not installed.
        ServerUnavailable: it does not answer, or not to this token.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error

    wanted = address or os.environ.get("RAY_ADDRESS") or AUTO
    ended = signal.getsignal(signal.SIGTERM)
    try:
        _require_listening(wanted)
        ray.init(wanted, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ServerUnavailable(
            f"Ray does not let us in at {wanted}: start it with `ray start --head`, name it with "
            "--ray-address, or give the cluster's token in RAY_AUTH_TOKEN with RAY_AUTH_MODE=token. "
            f"It says: {error}"
        ) from error
    finally:
        _restore(ended)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield RayWorkers(count or int(resources["CPU"]), work)
    finally:
        ray.shutdown()


def _require_listening(address: str) -> None:
    """Ray itself would try for minutes."""
    host, separator, port = address.rpartition(":")
    if separator and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS_WITHIN_SECONDS).close()


def _restore(handler: Any) -> None:
    """Ray ends a process on SIGTERM without telling anybody; only the main thread may have let it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


class RayWorkers:
    """Every fold is a task of its own; the bars are sent to a machine once."""

    def __init__(self, count: int, work: SharedInputs) -> None:
        import ray

        self.count = count
        # whoever asks decides about another try: Ray's own would hide that a worker was lost
        self._run: Any = ray.remote(num_cpus=1, max_retries=0)(run_fold)
        self._work = ray.put(work)

    def submit(self, fold: FoldTask) -> Future[Floats]:
        future: Future[Floats] = self._run.remote(self._work, fold).future()
        return future

    def result(self, future: Future[Floats]) -> Floats | Failure:
        from ray.exceptions import RayTaskError

        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, RayTaskError):
            return Failure(told(error.cause), lost=False)
        return Failure(told(error), lost=True)
