"""How far a task is, as a bar on the run's page."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import replace
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from clm_core.services import Services

PAUSE_SECONDS = 1.0
"""No request to the server for every step of a quick task."""


@contextmanager
def shown(services: Services, key: str) -> Iterator[Services]:
    """The services, whose announcements also move a bar; it is full when the block ends well."""
    artifact = create_progress_artifact(0.0, key=key, description="Starting")
    assert isinstance(artifact, UUID)
    # a thread of a training library knows neither this run nor its server
    context, lock = copy_context(), threading.Lock()
    last = time.monotonic()

    def announce(step: str, share: float) -> None:
        nonlocal last
        services.announce(step, share)
        with lock:
            if time.monotonic() - last < PAUSE_SECONDS:
                return
            last = time.monotonic()
            # a bar that stands still is no reason to lose a training
            with suppress(HTTPError):
                context.run(update_progress_artifact, artifact, progress=100 * share, description=step)

    yield replace(services, announce=announce)
    update_progress_artifact(artifact, progress=100.0, description="Done")
