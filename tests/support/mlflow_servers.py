"""MLflow's server as processes: behind CLM's guard as `clm up` starts it, and MLflow alone."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from installations import wait_until

from clm_core.services import Services

GUARDED = ("-m", "clm_core.registry.server", "{port}")
ALONE = ("-m", "uvicorn", "--log-level=warning", "--port={port}", "mlflow.server.fastapi_app:app")


class MLflowServer:
    """Process of a server over the database of a home."""

    def __init__(self, services: Services, command: tuple[str, ...], **variables: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, *(part.format(port=self.port) for part in command)]
        uri = services.database.url("mlflow")
        self._environment = os.environ | {
            "CLM_HOME": str(services.settings.home),
            "MLFLOW_BACKEND_STORE_URI": uri,
            "_MLFLOW_SERVER_FILE_STORE": uri,
            "_MLFLOW_SERVER_ARTIFACT_ROOT": str(services.settings.home / "mlflow" / "artifacts"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **variables,
        }
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, env=self._environment)
        wait_until(self.answers)

    def answers(self) -> bool:
        assert self._process.poll() is None, f"the server ended with {self._process.returncode}"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health", timeout=2).status_code == httpx.codes.OK
        return False

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def client(self, headers: Mapping[str, str] | None = None, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, **options)


@contextlib.contextmanager
def serving(services: Services, command: tuple[str, ...], **variables: str) -> Iterator[MLflowServer]:
    server = MLflowServer(services, command, **variables)
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
