"""Workers of a work pool of Prefect in one process, each with a queue and a limit of its own.

    python -m clm_core.platform.prefect_workers POOL TYPE NAME QUEUE LIMIT [NAME QUEUE LIMIT ...]

The command `prefect worker start` has a single worker in a process, and a process takes 55 MB of its own. The
process ends with the first worker that fails.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from clm_core.platform.garbage_collection import collect_garbage_rarely, return_memory_after_start
from clm_core.platform.prefect_worker import use_temporary_folder
from clm_core.platform.private_files import keep_files_private


class QueueWorker(NamedTuple):
    """Worker of a queue."""

    name: str
    """Name in Prefect."""
    queue: str
    max_runs: int
    """Largest number of runs at a time."""


def arguments(pool: str, pool_type: str, workers: Sequence[QueueWorker]) -> tuple[str, ...]:
    """Arguments of this module's command line."""
    return (pool, pool_type, *(str(value) for worker in workers for value in worker))


async def serve(pool: str, pool_type: str, workers: Sequence[QueueWorker]) -> None:
    """Start the runs of the queues until SIGINT or SIGTERM.

    A missing pool is not created: the pool of a worker would admit any command.

    Raises:
        SystemExit: no worker for the type of the pool is installed.
    """
    from prefect.utilities.processutils import setup_signal_handlers_worker
    from prefect.workers.base import BaseWorker

    kind = BaseWorker.get_worker_class_from_type(pool_type)
    if kind is None:
        sys.exit(f"No worker for a {pool_type} pool is installed: install prefect-{pool_type}.")
    setup_signal_handlers_worker(os.getpid(), "the workers", print)
    try:
        async with asyncio.TaskGroup() as group:
            for each in workers:
                worker = kind(
                    name=each.name,
                    work_pool_name=pool,
                    work_queues=[each.queue],
                    limit=each.max_runs,
                    create_pool_if_not_found=False,
                )
                group.create_task(worker.start())
    except asyncio.CancelledError:
        print("The workers stopped.")


def main(pool: str, pool_type: str, *values: str) -> None:
    use_temporary_folder()
    from prefect.logging.configuration import setup_logging

    setup_logging()
    triples = zip(values[::3], values[1::3], map(int, values[2::3]), strict=True)
    asyncio.run(serve(pool, pool_type, [QueueWorker(*each) for each in triples]))


if __name__ == "__main__":
    collect_garbage_rarely()
    keep_files_private()
    return_memory_after_start()
    main(*sys.argv[1:])
