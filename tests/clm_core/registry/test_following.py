"""Following of the version in production: a stream that breaks off, and polling without one."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from installations import wait_until
from patience import PATIENT_SECONDS

from clm_core.domain.errors import BundleCorrupt, RegistryUnavailable
from clm_core.domain.published_events import PublishedEvent
from clm_core.platform.event_stream import ReceivedEvent, parsed
from clm_core.registry.following import Callbacks, Followed, ProductionSource

MODEL = "xgboost_btcusd_1h"
NEVER = 3600.0


@dataclass(frozen=True)
class Loaded:
    mlflow_version: int


@dataclass
class Production:
    """Alias of a model, with failures to order."""

    number: int | None = 1
    reads: int = 0
    failure: Exception | None = None
    refused: set[int] = field(default_factory=set)

    def read(self) -> int | None:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return self.number

    def load(self) -> Loaded:
        assert self.number is not None
        if self.number in self.refused:
            raise BundleCorrupt("trees.ubj was changed")
        return Loaded(self.number)

    @property
    def source(self) -> ProductionSource[Loaded]:
        return ProductionSource(self.read, self.load)


class Stream(ThreadingHTTPServer):
    """Server that writes events to its connections and can end them."""

    daemon_threads = True

    def __init__(self) -> None:
        self.sent: list[tuple[int, str, dict[str, Any]]] = []
        self.asked: list[str | None] = []
        self.refuses = False
        self.epoch = 0
        super().__init__(("127.0.0.1", 0), _Subscriber)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/clm/events"

    def publish(self, kind: str, model_id: str = MODEL) -> None:
        self.sent.append((len(self.sent) + 1, kind, {"model_id": model_id, "version": "v1"}))

    def end_connections(self) -> None:
        self.epoch += 1


class _Subscriber(BaseHTTPRequestHandler):
    server: Stream

    def do_GET(self) -> None:
        last = self.headers.get("Last-Event-ID")
        self.server.asked.append(last)
        if self.server.refuses:
            self.send_error(503)
            return
        position = int(last) if last else len(self.server.sent)
        epoch = self.server.epoch
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b": connected\n\n")
        while epoch == self.server.epoch:
            for seq, kind, data in self.server.sent[position:]:
                event = {"id": "00000000-0000-0000-0000-000000000001", "seq": seq, "type": kind}
                event |= {"timestamp": "2026-03-04T12:00:00+00:00", "data": data, "of_later_releases": 1}
                self.wfile.write(f"id: {seq}\nevent: {kind}\ndata: {json.dumps(event)}\n\n".encode())
                position = seq
            time.sleep(0.01)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def stream() -> Iterator[Stream]:
    with Stream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.end_connections()
        server.shutdown()
        thread.join()


Calls = list[tuple[str, int | None, str | None]]


def follow(
    production: Production, stream: Stream | None, calls: Calls, poll_seconds: float = NEVER
) -> Followed[Loaded]:
    def tell(name: str) -> Callable[[Loaded, PublishedEvent | None], None]:
        return lambda served, event: calls.append((name, served.mlflow_version, event and event.type))

    callbacks = Callbacks(
        tell("promoted"), tell("rollback"), lambda event: calls.append(("halted", None, event and event.type))
    )
    events = None if stream is None else (stream.url, {})
    return Followed(MODEL, production.source, events, callbacks, poll_seconds).start()


def test_each_change_in_the_stream_loads_the_version_in_production_and_calls_its_function(
    stream: Stream,
) -> None:
    production = Production()
    calls = Calls()
    with follow(production, stream, calls) as followed:
        assert followed.served == Loaded(1)
        assert not followed.wait(0.0)
        # the second read comes once the stream is open, and would find the change before the event
        wait_until(lambda: production.reads == 2)
        for number, kind in (
            (2, "clm.model_promoted"),
            (1, "clm.model_rollback"),
            (None, "clm.model_halted"),
        ):
            production.number = number
            stream.publish(kind)
            assert followed.wait(PATIENT_SECONDS)
            assert followed.served == (number and Loaded(number))
            wait_until(lambda kind=kind: bool(calls) and calls[-1][2] == kind)
    assert [name for name, _, _ in calls] == ["promoted", "rollback", "halted"]


def test_events_of_other_models_and_of_other_types_cause_no_read(stream: Stream) -> None:
    production = Production()
    calls = Calls()
    with follow(production, stream, calls) as followed:
        # one at the start, one when the stream is open
        wait_until(lambda: production.reads == 2)
        stream.publish("clm.model_promoted", model_id="another")
        stream.publish("clm.model_trained")
        stream.publish("market.unheard_of")
        production.number = 2
        stream.publish("clm.model_promoted")
        assert followed.wait(PATIENT_SECONDS)
        assert production.reads == 3


def test_a_stream_that_ended_is_opened_again_after_the_last_event(stream: Stream) -> None:
    production = Production()
    calls = Calls()
    with follow(production, stream, calls) as followed:
        wait_until(lambda: production.reads == 2)
        production.number = 2
        stream.publish("clm.model_promoted")
        assert followed.wait(PATIENT_SECONDS)
        stream.end_connections()
        production.number = 3
        stream.publish("clm.model_promoted")
        assert followed.wait(PATIENT_SECONDS)
        assert followed.served == Loaded(3)
        wait_until(lambda: stream.asked[:2] == [None, "1"])


@pytest.mark.parametrize("has_stream", [False, True], ids=["without a stream", "with a refused stream"])
def test_polling_finds_a_change_without_the_stream(has_stream: bool, stream: Stream) -> None:
    stream.refuses = True
    production = Production()
    calls = Calls()
    with follow(production, stream if has_stream else None, calls, poll_seconds=0.02) as followed:
        production.number = 2
        assert followed.wait(PATIENT_SECONDS)
        production.number = None
        assert followed.wait(PATIENT_SECONDS)
        assert followed.served is None
        wait_until(lambda: len(calls) == 2)
    assert calls == [("promoted", 2, None), ("halted", None, None)]


def test_the_loaded_version_stays_while_the_new_one_cannot_be_read() -> None:
    production = Production(refused={2})
    calls = Calls()
    with follow(production, None, calls, poll_seconds=0.02) as followed:
        production.failure = RegistryUnavailable("MLflow does not answer")
        wait_until(lambda: isinstance(followed.problem, RegistryUnavailable))
        production.failure = None
        wait_until(lambda: followed.problem is None)
        production.number = 2
        wait_until(lambda: isinstance(followed.problem, BundleCorrupt))
        assert followed.served == Loaded(1)
        production.refused.clear()
        assert followed.wait(PATIENT_SECONDS)
        assert (followed.served, followed.problem) == (Loaded(2), None)


def test_a_model_without_a_version_in_production_is_followed_and_one_that_cannot_be_read_is_not() -> None:
    with follow(Production(number=None), None, Calls()) as followed:
        assert followed.served is None
    with pytest.raises(BundleCorrupt, match="was changed"):
        follow(Production(refused={1}), None, Calls())


def test_a_callback_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ValueError("of the trader")

    production = Production()
    callbacks = Callbacks[Loaded](fail, None, None)
    with Followed(MODEL, production.source, None, callbacks, 0.02).start() as followed:
        for number in (2, 3):
            production.number = number
            assert followed.wait(PATIENT_SECONDS)
        wait_until(lambda: caplog.text.count("of the trader") >= 2)


def test_closing_ends_a_stream_that_is_silent(stream: Stream) -> None:
    followed = follow(Production(), stream, Calls())
    wait_until(lambda: stream.asked == [None])
    began = time.monotonic()
    followed.close()
    assert time.monotonic() - began < 1.5


def test_lines_of_a_stream_are_read_as_the_standard_says() -> None:
    lines = [": a comment", "", "data: one", "data:two", "id: 7", "event: kind", "", "id: 8", "", "data", ""]
    events = list(parsed(iter(lines), None))
    assert events == [ReceivedEvent("7", "kind", "one\ntwo"), ReceivedEvent("8", "message", "")]
