"""Servers beside the API: links to pages, and the next scheduled runs."""

import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from clm_core.operations.status import NextRun, next_runs
from clm_core.platform import stack_state

ASKED_EVERY_SECONDS = 60.0
WAIT_SECONDS = 0.5
"""Maximum time for which a page waits for the answer of Prefect; later pages show the answer."""


@dataclass(frozen=True)
class Links:
    """Addresses of the pages of other servers; None for an unknown server."""

    prefect: str | None
    mlflow: str | None


class Surroundings:
    """Servers of the installation, by the state of `clm up` or else by the environment of the process."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="next-runs")
        self._lock = threading.Lock()
        self._asked_at = -ASKED_EVERY_SECONDS
        self._answer: Future[tuple[NextRun, ...]] | None = None
        self._known: tuple[NextRun, ...] = ()

    def links(self) -> Links:
        state = stack_state.running(self._home)
        if state is not None:
            return Links(prefect=state.prefect_url, mlflow=state.mlflow_url)
        prefect = os.environ.get("PREFECT_UI_URL") or _without_path(os.environ.get("PREFECT_API_URL", ""))
        mlflow = os.environ.get("MLFLOW_TRACKING_URI", "")
        return Links(prefect=prefect or None, mlflow=mlflow if mlflow.startswith("http") else None)

    def next_runs(self) -> tuple[NextRun, ...]:
        """Next scheduled runs as of the last minute, soonest first; empty while Prefect does not answer."""
        with self._lock:
            if time.monotonic() - self._asked_at >= ASKED_EVERY_SECONDS:
                self._asked_at = time.monotonic()
                self._answer = self._threads.submit(self._ask)
            answer = self._answer
        if answer is not None and not self._known:
            wait([answer], WAIT_SECONDS)
        return self._known

    def _ask(self) -> tuple[NextRun, ...]:
        environment = self._environment()
        self._known = () if environment is None else next_runs(environment)
        return self._known

    def _environment(self) -> Mapping[str, str] | None:
        state = stack_state.running(self._home)
        if state is not None:
            return stack_state.prefect_environment(self._home, state)
        return os.environ if "PREFECT_API_URL" in os.environ else None


def _without_path(api_url: str) -> str:
    """Address of Prefect's pages, beside the API."""
    return api_url.removesuffix("/").removesuffix("/api")
