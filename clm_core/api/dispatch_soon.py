"""Immediate dispatch of new messages and jobs by a worker; the next maintenance run answers the rest."""

import contextlib
import threading
import time
import uuid
from pathlib import Path

from clm_core.domain.errors import ServerUnavailable
from clm_core.platform.prefect_runs import prefect_runs

DISPATCH = "dispatch"
"""Name of the flow and of its deployment."""
PAUSE_SECONDS = 15.0
"""Minimum time between two requests: a run still starting answers later messages too."""


class DispatchSoon:
    """Requests a dispatch run from Prefect in a thread, so that no response waits for Prefect."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._free_at = 0.0

    def __call__(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._free_at:
                return
            self._free_at = now + PAUSE_SECONDS
        threading.Thread(target=self._ask, name="dispatch-soon", daemon=True).start()

    def _ask(self) -> None:
        # maintenance alerts about a server that is down
        with contextlib.suppress(ServerUnavailable), prefect_runs(self._home) as prefect:
            deployments = prefect.deployments(DISPATCH)
            if DISPATCH in deployments:
                prefect.create(deployments[DISPATCH], {}, str(uuid.uuid4()), [])
