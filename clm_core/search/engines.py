"""Choice of the workers of a tuning: processes of this machine, or a Ray cluster."""

import contextlib
from collections.abc import Iterator

from clm_core.domain.tuning import Engine, TuneRequest
from clm_core.search.folds import SharedInputs
from clm_core.search.workers import Workers, local_workers


@contextlib.contextmanager
def open_workers(request: TuneRequest, shared_inputs: SharedInputs) -> Iterator[Workers]:
    """Workers that live as long as the block; folds unfinished at the end of the block are abandoned.

    Raises:
        MissingExtra: Ray is requested and not installed.
        ServerUnavailable: Ray is requested and does not answer.
    """
    if request.on is Engine.RAY:
        from clm_core.search.ray_workers import ray_workers

        with ray_workers(request.ray_address, request.workers, shared_inputs) as cluster:
            yield cluster
    else:
        with local_workers(request.workers, shared_inputs) as processes:
            yield processes
