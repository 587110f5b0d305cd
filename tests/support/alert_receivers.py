"""Receiver of alerts on this machine, as a `json://` URL of apprise."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class AlertReceiver:
    url: str = ""
    """URL for `[alerts] urls`."""
    heartbeat_url: str = ""
    """Address that counts heartbeats."""
    titles: list[str] = field(default_factory=list)
    """Title of each received alert: `CLM #4: pass overdue, watch`."""
    heartbeats: int = 0


@contextmanager
def alert_receiver() -> Iterator[AlertReceiver]:
    received = AlertReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.titles.append(json.loads(body)["title"])
            self._answer()

        def do_GET(self) -> None:
            received.heartbeats += 1
            self._answer()

        def _answer(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        received.url = f"json://127.0.0.1:{server.server_address[1]}/alerts"
        received.heartbeat_url = f"http://127.0.0.1:{server.server_address[1]}/heartbeat"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield received
        server.shutdown()
