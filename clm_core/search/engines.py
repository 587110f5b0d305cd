"""Choice of the workers of a search: this machine, or a Ray cluster."""

import contextlib
import os
import threading
from collections.abc import Iterator
from importlib.util import find_spec

from clm_core.domain.errors import MissingExtra
from clm_core.domain.searches import Engine, Placement
from clm_core.search.folds import SharedInputs
from clm_core.search.strategy_objectives import MeasureInputs, Measures
from clm_core.search.workers import Workers, local_workers


def require_engine(placement: Placement) -> None:
    """
    Raises:
        MissingExtra: Ray is requested and not installed.
    """
    if placement.on is Engine.RAY and find_spec("ray") is None:
        raise MissingExtra("ray", "ray")


@contextlib.contextmanager
def open_workers(placement: Placement, shared_inputs: SharedInputs) -> Iterator[Workers]:
    """Workers that live as long as the block; folds unfinished at the end of the block are abandoned.

    Raises:
        MissingExtra: Ray is requested and not installed.
        ServerUnavailable: Ray is requested and does not answer.
    """
    if placement.on is Engine.RAY:
        from clm_core.search.ray_workers import ray_workers

        with ray_workers(placement.ray_address, placement.workers, shared_inputs) as cluster:
            yield cluster
    else:
        with local_workers(placement.workers, shared_inputs) as processes:
            yield processes


@contextlib.contextmanager
def open_measures(
    placement: Placement, inputs: MeasureInputs, interrupted: threading.Event
) -> Iterator[Measures | None]:
    """Measures of rule strategies in processes or on a Ray cluster; None for the threads of this process.

    Raises:
        MissingExtra: Ray is requested and not installed.
        ServerUnavailable: Ray is requested and does not answer.
    """
    if placement.on is Engine.RAY:
        from clm_core.search.ray_measures import ray_measures

        with ray_measures(placement.ray_address, placement.workers, inputs, interrupted) as cluster:
            yield cluster
    elif placement.on is Engine.PROCESSES:
        from clm_core.search.process_measures import process_measures

        with process_measures(placement.workers or os.cpu_count() or 1, inputs, interrupted) as processes:
            yield processes
    else:
        yield None
