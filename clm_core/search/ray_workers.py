"""Workers on the machines of a Ray cluster, which need this release but no access to the database."""

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
from clm_core.search.workers import Failure, error_line

AUTO = "auto"
"""Ray's name for the cluster started last on this machine."""
CONNECT_TIMEOUT_SECONDS = 10


@contextlib.contextmanager
def ray_workers(
    address: str | None, count: int | None, shared_inputs: SharedInputs
) -> Iterator["RayWorkers"]:
    """Workers on a running cluster.

    Raises:
        MissingExtra: Ray is not installed.
        ServerUnavailable: the cluster does not answer, or refuses the token.
    """
    with connection(address) as processors:
        yield RayWorkers(count or processors, shared_inputs)


@contextlib.contextmanager
def connection(address: str | None) -> Iterator[int]:
    """A connection to a running cluster, with the number of its processors.

    With RAY_AUTH_MODE=token, Ray authenticates with the token in RAY_AUTH_TOKEN, in the file
    RAY_AUTH_TOKEN_PATH, or in ~/.ray/auth_token.

    Raises:
        MissingExtra: Ray is not installed.
        ServerUnavailable: the cluster does not answer, or refuses the token.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error

    cluster = address or os.environ.get("RAY_ADDRESS") or AUTO
    sigterm_handler = signal.getsignal(signal.SIGTERM)
    try:
        _require_listening(cluster)
        ray.init(cluster, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ServerUnavailable(
            f"Cannot connect to Ray at {cluster}: start a cluster with `ray start --head`, give its address "
            "with --ray-address, or its token in RAY_AUTH_TOKEN with RAY_AUTH_MODE=token. "
            f"Ray's error: {error}"
        ) from error
    finally:
        _restore(sigterm_handler)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield int(resources["CPU"])
    finally:
        ray.shutdown()


def _require_listening(address: str) -> None:
    """Fail at once where nothing listens: Ray itself retries for minutes."""
    host, separator, port = address.rpartition(":")
    if separator and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_SECONDS).close()


def _restore(handler: Any) -> None:
    """Undo Ray's SIGTERM handler, installed in the main thread only, which ends the process silently."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


class RayWorkers:
    """A Ray task per fold; the bars are sent to each machine once."""

    def __init__(self, count: int, shared_inputs: SharedInputs) -> None:
        import ray

        self.count = count
        # the evaluator decides about another attempt: Ray's own retries would hide a lost worker
        self._run: Any = ray.remote(num_cpus=1, max_retries=0)(run_fold)
        self._shared_inputs = ray.put(shared_inputs)

    def submit(self, fold_task: FoldTask) -> Future[Floats]:
        future: Future[Floats] = self._run.remote(self._shared_inputs, fold_task).future()
        return future

    def result(self, future: Future[Floats]) -> Floats | Failure:
        from ray.exceptions import RayTaskError

        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, RayTaskError):
            return Failure(error_line(error.cause), lost=False)
        return Failure(error_line(error), lost=True)
