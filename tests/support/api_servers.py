"""The API served on a port, in a thread of the test process."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from clm_core.api.__main__ import configuration
from clm_core.api.app import create_app
from clm_core.services import Services


class Server:
    """API on a port, for requests in raw bytes."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, *parts: bytes, pause: float = 0.0) -> tuple[int, bytes, float]:
        """Status, raw response, and seconds until the response was complete."""
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            with contextlib.suppress(ConnectionError):
                for number, part in enumerate(parts):
                    time.sleep(pause if number else 0)
                    connection.sendall(part)
            answer = bytearray()
            with contextlib.suppress(ConnectionError):
                while received := connection.recv(65536):
                    answer += received
        seconds = time.monotonic() - began
        return int(answer.split(b" ", 2)[1]) if answer else 0, bytes(answer), seconds


@contextlib.contextmanager
def serving_api(clm: Services) -> Iterator[Server]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        running = uvicorn.Server(configuration(create_app(clm), clm.settings.api, port))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield Server(port)
        running.should_exit = True
        thread.join()
