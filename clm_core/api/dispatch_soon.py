"""Has a worker answer at once what came in; what that misses, the next upkeep answers."""

import contextlib
import threading
import time
import uuid
from pathlib import Path

from clm_core.domain.errors import ServerUnavailable
from clm_core.platform.prefect_runs import prefect_runs

DISPATCH = "dispatch"
"""The flow, and its deployment."""
PAUSE_SECONDS = 15.0
"""What comes within it is mostly answered by the same run: a process takes its time to start."""


class Nudge:
    """Asks Prefect for a drain, in a thread of its own: no answer ever waits for Prefect."""

    def __init__(self, home: Path) -> None:
        self._home, self._lock, self._free_at = home, threading.Lock(), 0.0

    def __call__(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._free_at:
                return
            self._free_at = now + PAUSE_SECONDS
        threading.Thread(target=self._ask, name="nudge", daemon=True).start()

    def _ask(self) -> None:
        # whoever is away is told by the upkeep
        with contextlib.suppress(ServerUnavailable), prefect_runs(self._home) as prefect:
            deployments = prefect.deployments(DISPATCH)
            if DISPATCH in deployments:
                prefect.create(deployments[DISPATCH], {}, str(uuid.uuid4()), [])
