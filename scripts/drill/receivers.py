"""Receivers on this machine that answer like Slack, PagerDuty and a trader, and keep what they got."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = re.compile(r"alertname = (\w+)")


class Place(StrEnum):
    SLACK = "slack"
    PAGERDUTY = "pagerduty"


@dataclass(frozen=True)
class Message:
    """Notification of Alertmanager about one group of alerts."""

    place: Place
    alert: str
    firing: bool
    """False for the end of the alert."""
    text: str
    at: float
    """Time of the receipt, seconds since 1970."""


@dataclass
class Received:
    messages: list[Message] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    """Requests that neither Slack nor PagerDuty would accept."""
    slack_url: str = ""
    pagerduty_url: str = ""


def slack_message(body: dict[str, Any], at: float) -> Message:
    """Message of an incoming webhook of Slack."""
    [attachment] = body["attachments"]
    status, _, alert = attachment["title"].partition(" ")
    return Message(Place.SLACK, alert, status == "FIRING", attachment["text"], at)


def pagerduty_message(body: dict[str, Any], at: float) -> Message:
    """Message of PagerDuty's Events API v2.

    Raises:
        KeyError: a field that PagerDuty requires is missing.
    """
    if not body["routing_key"] or not body["dedup_key"]:
        raise KeyError("routing_key, dedup_key")
    payload = body["payload"]
    details = payload["custom_details"]
    firing = body["event_action"] == "trigger"
    name = NAME.search(details["firing"] if firing else details["resolved"])
    return Message(Place.PAGERDUTY, name.group(1) if name else "", firing, payload["summary"], at)


@contextmanager
def receivers() -> Iterator[Received]:
    """Slack and PagerDuty, while the block lasts."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            is_slack = self.path.startswith("/services/")
            try:
                read = slack_message if is_slack else pagerduty_message
                received.messages.append(read(body, time.time()))
            except (KeyError, ValueError) as error:
                received.malformed.append(f"{self.path}: {error!r}: {body}")
                _answer(self, 400, b"invalid_payload")
                return
            _answer(self, *((200, b"ok") if is_slack else (202, b'{"status": "success"}')))

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as address:
        received.slack_url = f"{address}/services/T0/B0/drill"
        received.pagerduty_url = f"{address}/v2/enqueue"
        yield received


class Trader:
    """Receiver of the events of CLM, that can be away."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.events = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        trader = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                trader.events += 1
                _answer(self, 204, b"")

            def log_message(self, *_: object) -> None:
                pass

        with _serving(Handler, self._port):
            yield


def _answer(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
