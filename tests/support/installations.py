"""Installations with homes of their own, and the commands run on them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from forked_commands import run_clm
from patience import PATIENT_SECONDS

from clm_core.platform import stack_state

CLM = Path(sys.executable).with_name("clm")
KEPT = ("PREFECT_API_SSL_CERT_FILE",)
"""Variables of the test session that cannot change an answer."""


class Installation:
    """Installation in a home folder."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CLM_", "PREFECT_"))}
        certificates = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.environment = own | certificates | {"CLM_HOME": str(home)} | variables

    def clm(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Result of a command typed in a folder, by default the current folder."""
        return run_clm(arguments, self.environment, timeout=2 * PATIENT_SECONDS, folder=folder)

    @property
    def state(self) -> stack_state.StackState:
        state = stack_state.running(self.home)
        assert state is not None
        return state

    def prefect(self, method: str, path: str, body: Any = None) -> Any:
        user, _, password = stack_state.prefect_auth(self.home).partition(":")
        url = f"{self.state.prefect_api_url}{path}"
        answer = httpx.request(method, url, json=body, auth=(user, password), timeout=60).raise_for_status()
        return answer.json() if answer.content else None

    def processes(self) -> list[int]:
        """Process ids of the installation, found by environment."""
        mark = f"CLM_HOME={self.home}\0".encode()
        processes = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes():
                    processes.append(int(folder.name))
            except OSError:
                continue
        return processes


def wait_until(done: Callable[[], bool], seconds: float = PATIENT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)
