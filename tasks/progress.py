"""Progress bar of a task on the run's page."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import replace
from uuid import UUID

from clm_core.platform.flow_run import current_run
from clm_core.services import Services

PAUSE_SECONDS = 1.0
"""Minimum time between two updates: no request to the server for every step of a quick task."""


@contextmanager
def progress_bar(services: Services, key: str) -> Iterator[Services]:
    """Services whose announcements also move a progress bar; full when the block ends without error.

    Without a flow run the services stay as they are.
    """
    if current_run() is None:
        yield services
        return
    from httpx import HTTPError
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    artifact = create_progress_artifact(0.0, key=key, description="Starting")
    assert isinstance(artifact, UUID)
    # a thread of a training library has no context of this run and its server
    context = copy_context()
    lock = threading.Lock()
    last = time.monotonic()

    def announce(step: str, share: float) -> None:
        nonlocal last
        services.announce(step, share)
        with lock:
            if time.monotonic() - last < PAUSE_SECONDS:
                return
            last = time.monotonic()
            # a progress bar that cannot be updated must not end a training
            with suppress(HTTPError):
                context.run(update_progress_artifact, artifact, progress=100 * share, description=step)

    yield replace(services, announce=announce)
    update_progress_artifact(artifact, progress=100.0, description="Done")
