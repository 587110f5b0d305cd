import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from patience import PATIENT_SECONDS


def test_the_server_ends_when_its_parent_process_ends(home: Path, services: object) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLM_")}
    with subprocess.Popen(
        [sys.executable, "-m", "clm_core.api", str(port)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"CLM_HOME": str(home)},
    ) as process:
        assert process.stdin is not None
        deadline = time.monotonic() + PATIENT_SECONDS
        while True:
            try:
                health = httpx.get(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert (health.status_code, health.json()["parts"]["database"]) == (200, "ok")
        process.stdin.close()
        assert process.wait(PATIENT_SECONDS) == 0
