"""Prefect server with a clock set by the test.

`python moved_clock.py PORT MOMENT` runs the server. Each line on standard input sets the clock to another
moment; the end of standard input stops the server.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from installations import wait_until

from clm_core.platform.prefect_runs import is_answering


@dataclass(frozen=True)
class MovedServer:
    url: str
    """Address of the API."""
    process: "subprocess.Popen[str]"

    def move_to(self, moment: datetime) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{moment.isoformat()}\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def server_at(
    moment: datetime, port: int, environment: Mapping[str, str], log: Path
) -> Iterator[MovedServer]:
    """Run a server whose clock starts at the moment, while the block lasts."""
    with (
        log.open("a") as output,
        subprocess.Popen(
            [sys.executable, __file__, str(port), moment.isoformat()],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            text=True,
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}/api"
        try:
            wait_until(lambda: process.poll() is not None or is_answering(f"{url}/health"))
            yield MovedServer(url, process)
        finally:
            process.kill()


def _serve(port: int, moment: datetime) -> None:
    import time_machine

    with time_machine.travel(moment) as clock:
        import uvicorn
        from prefect.server.api.server import create_app

        server = uvicorn.Server(uvicorn.Config(create_app(), port=port, log_level="warning"))

        def move() -> None:
            for line in sys.stdin:
                clock.move_to(datetime.fromisoformat(line.strip()))
            server.should_exit = True

        threading.Thread(target=move, daemon=True).start()
        server.run()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), datetime.fromisoformat(sys.argv[2]))
