"""What is recorded is told in order, at least once, to each receiver at its own pace."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from patience import PATIENT_SECONDS
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, text
from standardwebhooks import Webhook

from clm_core.domain.actors import Actor
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.errors import NotFound
from clm_core.domain.vocabulary import Role
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.audit_log import entries
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.receivers import ReceiverStore
from clm_core.operations import delivery
from clm_core.operations.delivery import DeliveryResult, deliver
from clm_core.services import Services
from clm_core.settings import AlertSettings, EventSettings, Subscriber

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DAY = timedelta(days=1)
ADMIN = Actor(name="ada", role=Role.ADMIN)


@dataclass
class Request:
    body: Any
    raw: str
    headers: dict[str, str]


@dataclass
class Listener:
    """A receiver on this machine that keeps what it is told, and answers as a test wants."""

    url: str = ""
    status: int = 204
    heard: list[Request] = field(default_factory=list)
    before_answering: Callable[[], object] = lambda: None

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.heard]


@pytest.fixture
def listen() -> Iterator[Callable[[], Listener]]:
    servers = []

    def start() -> Listener:
        listener = Listener()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"])).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                listener.heard.append(Request(json.loads(raw), raw, headers))
                listener.before_answering()
                self.send_response(listener.status)
                self.send_header("location", f"{listener.url}/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        listener.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        servers.append(server)
        return listener

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def engine(services: Services) -> Iterator[Engine]:
    """Of a ledger in which nothing has happened yet."""
    name = f"delivery_{uuid.uuid4().hex}"
    with psycopg.connect(services.database.server, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    url = urlsplit(services.database.url("ledger", driver="psycopg"))._replace(path=f"/{name}").geturl()
    upgrade(url)
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def clm(services: Services, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return replace(services, alerts=AlertStore(engine), receivers=ReceiverStore(engine))


def telling(
    services: Services, subscribers: Sequence[Listener] = (), people: Sequence[Listener] = ()
) -> Services:
    events = EventSettings(
        subscribers=tuple(Subscriber(url=each.url, secret=SecretStr(SECRET)) for each in subscribers)
    )
    alerts = AlertSettings(urls=tuple(SecretStr(each.url.replace("http", "json")) for each in people))
    settings = services.settings.model_copy(update={"events": events, "alerts": alerts})
    return replace(services, settings=settings)


def after(services: Services, wait: timedelta) -> Services:
    return replace(services, clock=lambda: services.clock() + wait)


def happen(engine: Engine, count: int, at: datetime, model_id: str = "a_model_1h") -> list[str]:
    """Events in the outbox; their ids in order."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    row = text("INSERT INTO outbox (id, type, payload, at) VALUES (:id, 'clm.model_promoted', :payload, :at)")
    for number, each in enumerate(ids):
        payload = json.dumps({"model_id": model_id, "promotion_id": number})
        with engine.begin() as connection:
            connection.execute(row, {"id": each, "payload": payload, "at": at})
    return ids


def test_a_subscriber_is_told_every_event_in_order_signed_and_once(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    ids = happen(engine, 3, clm.clock())
    [told] = deliver(telling(clm, [listener]))
    assert (told.sent, told.waiting, told.last_error) == (3, 0, None)
    assert listener.ids == ids
    assert [request.body["data"]["promotion_id"] for request in listener.heard] == [0, 1, 2]
    for request in listener.heard:
        assert Webhook(SECRET).verify(request.raw, request.headers)["type"] == "clm.model_promoted"
    assert deliver(telling(clm, [listener]))[0].sent == 0
    assert len(listener.heard) == 3


def test_a_subscriber_that_is_down_holds_up_nobody_and_hears_everything_later(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    up, down = listen(), listen()
    down.status = 503
    both = telling(clm, [up, down])
    ids = happen(engine, 3, clm.clock())
    told = deliver(both)
    assert [(each.sent, each.waiting) for each in told] == [(3, 0), (0, 3)]
    assert told[1].last_error == "the receiver answered with status 503"
    assert (up.ids, down.ids) == (ids, ids[:1])
    down.status = 200
    assert deliver(both)[1].sent == 0
    assert down.ids == ids[:1]
    assert deliver(after(both, timedelta(minutes=1)))[1].sent == 3
    assert down.ids == [ids[0], *ids]


def moment(at: datetime) -> datetime:
    return at


def test_the_wait_doubles_with_every_failure_up_to_a_quarter_of_an_hour(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    listener.status = 500
    now, waits = clm.clock(), list[float]()
    happen(engine, 1, now)
    for _ in range(9):
        [told] = deliver(replace(telling(clm, [listener]), clock=functools.partial(moment, now)))
        assert told.retry_at is not None
        waits.append((told.retry_at - now).total_seconds())
        now = told.retry_at
    assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900]


def deliver_every(pause: timedelta, services: Services, listener: Listener, end: datetime) -> DeliveryResult:
    now = services.clock()
    while now < end:
        [told] = deliver(replace(telling(services, [listener]), clock=functools.partial(moment, now)))
        now += pause
    return told


def test_what_is_not_taken_for_three_days_is_a_dead_letter_and_the_next_is_told(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener, now = listen(), clm.clock()
    listener.status = 400
    first, second = happen(engine, 1, now)[0], happen(engine, 1, now + 2 * DAY)[0]
    told = deliver_every(DAY / 4, clm, listener, now + 2.9 * DAY)
    assert (told.given_up, told.waiting, set(listener.ids)) == (0, 2, {first})
    told = deliver_every(DAY / 10, after(clm, 2.9 * DAY), listener, now + 3.1 * DAY)
    assert (told.given_up, told.waiting, set(listener.ids)) == (1, 1, {first, second})
    [letter] = clm.receivers.dead()
    assert (letter.about, letter.error) == (
        "clm.model_promoted a_model_1h",
        "the receiver answered with status 400",
    )
    assert letter.attempts == listener.ids.count(first)
    kinds = {AlertKind.DELIVERY_FAILING, AlertKind.DELIVERY_GIVEN_UP}
    assert {alert.kind for alert in clm.alerts.lasting()} == kinds


def test_old_news_is_tried_a_few_times_before_it_is_given_up(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener, now = listen(), clm.clock()
    happen(engine, 1, now)
    deliver(telling(clm, [listener]))
    [old] = happen(engine, 1, now)
    listener.status = 500
    deliver_every(timedelta(minutes=15), after(clm, 10 * DAY), listener, now + 10.1 * DAY)
    assert (listener.ids.count(old), len(clm.receivers.dead())) == (5, 1)


def test_a_dead_letter_that_somebody_asks_for_is_sent_once_more(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    listener.status = 500
    ids = happen(engine, 2, clm.clock())
    one = telling(clm, [listener])
    [name] = [told.name for told in deliver(one)]
    for _ in ids:
        clm.receivers.skip(name, "it cannot be read", ADMIN, clm.clock())
    assert [told.given_up for told in deliver(one)] == [2]
    assert clm.receivers.ask_retry(clm.receivers.named("127.0.0.1")) == 2
    deliver(one)
    assert [letter.retry_asked for letter in clm.receivers.dead()] == [True, False]
    clm.receivers.ask_retry(name)
    listener.status = 200
    [told] = deliver(one)
    assert (told.sent, told.given_up, sorted(listener.ids[-2:])) == (2, 0, sorted(ids))
    assert clm.alerts.lasting(AlertKind.DELIVERY_GIVEN_UP) == []


def test_who_skips_and_who_forgets_is_in_the_audit(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    listener.status = 500
    happen(engine, 1, clm.clock())
    [told] = deliver(telling(clm, [listener]))
    letter = clm.receivers.skip(told.name, "nobody needs it", ADMIN, clm.clock())
    with pytest.raises(NotFound, match="nothing to skip"):
        clm.receivers.skip(told.name, "nor this", ADMIN, clm.clock())
    assert clm.receivers.forget(told.name, ADMIN, clm.clock()) == 1
    assert clm.receivers.forget(told.name, ADMIN, clm.clock()) == 0
    skipped, forgotten = entries(engine, told.name)[::-1]
    assert (skipped.action, skipped.actor) == ("delivery_skipped", "ada")
    assert skipped.details == {"seq": letter.seq, "about": letter.about, "reason": "nobody needs it"}
    assert (forgotten.action, forgotten.details) == ("dead_letters_forgotten", {"seq": [letter.seq]})


def test_a_receiver_is_named_by_what_only_it_has(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    both = telling(clm, [listen(), listen()])
    names = [told.name for told in deliver(both)]
    assert clm.receivers.named(names[1].split()[-1]) == names[1]
    with pytest.raises(NotFound, match="names 2 receivers"):
        clm.receivers.named("subscriber")


def test_a_redirect_is_a_failure_and_is_not_followed(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    listener.status = 307
    happen(engine, 1, clm.clock())
    [told] = deliver(telling(clm, [listener]))
    assert (told.last_error, len(listener.heard)) == ("the receiver answered with status 307", 1)


def test_a_subscriber_that_never_answers_is_left_after_a_while(
    clm: Services, engine: Engine, listen: Callable[[], Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 0.3)
    listener, released = listen(), threading.Event()
    listener.before_answering = lambda: released.wait(PATIENT_SECONDS)
    happen(engine, 1, clm.clock())
    [told] = deliver(telling(clm, [listener]))
    released.set()
    assert told.last_error is not None
    assert "no answer (ReadTimeout" in told.last_error


def test_nobody_there_is_a_failure_with_its_cause(clm: Services, engine: Engine) -> None:
    happen(engine, 1, clm.clock())
    [told] = deliver(telling(clm, [Listener(url="http://127.0.0.1:9")]))
    assert told.last_error is not None
    assert "ConnectError" in told.last_error


def test_after_a_while_a_failing_receiver_is_an_alert_once_until_it_recovers(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    down, person = listen(), listen()
    down.status = 500
    both = telling(clm, [down], [person])
    happen(engine, 1, clm.clock())
    for minutes in (0, 5, 11, 40, 70):
        deliver(after(both, timedelta(minutes=minutes)))
    [alert] = clm.alerts.lasting(AlertKind.DELIVERY_FAILING)
    assert alert.subject.startswith(f"subscriber {down.url}")
    assert [request.body["title"] for request in person.heard] == [
        f"CLM #{alert.seq}: delivery failing, {alert.subject}"
    ]
    down.status = 200
    deliver(after(both, timedelta(minutes=100)))
    assert clm.alerts.lasting() == []


def test_a_receiver_taken_out_of_the_settings_fails_no_more(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    down = listen()
    down.status = 500
    happen(engine, 1, clm.clock())
    for minutes in (0, 11):
        deliver(after(telling(clm, [down]), timedelta(minutes=minutes)))
    assert clm.alerts.lasting() != []
    assert deliver(telling(clm)) == []
    assert clm.alerts.lasting() == []


def test_of_two_who_deliver_at_once_one_tells_a_receiver(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener, arrived, released = listen(), threading.Event(), threading.Event()
    listener.before_answering = lambda: (arrived.set(), released.wait(PATIENT_SECONDS))
    ids, answers = happen(engine, 3, clm.clock()), list[DeliveryResult]()
    first = threading.Thread(target=lambda: answers.extend(deliver(telling(clm, [listener]))))
    first.start()
    assert arrived.wait(PATIENT_SECONDS)
    assert deliver(telling(clm, [listener]))[0].sent == 0
    released.set()
    first.join(PATIENT_SECONDS)
    assert [each.sent for each in answers] == [3]
    assert listener.ids == ids


KILLED = """
import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from sqlalchemy import create_engine
from clm_core.operations.delivery import deliver
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.audit_log import entries
from clm_core.ledger.receivers import ReceiverStore
from clm_core.settings import load_settings

engine = create_engine(sys.argv[1])
deliver(SimpleNamespace(
    settings=load_settings(), alerts=AlertStore(engine), receivers=ReceiverStore(engine),
    clock=lambda: datetime.now(UTC),
))
"""


def test_what_was_sent_by_who_was_killed_before_noting_it_is_sent_again_under_the_same_id(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener, arrived = listen(), threading.Event()
    ids = happen(engine, 2, clm.clock())
    listener.before_answering = lambda: (arrived.set(), threading.Event().wait(2))
    subscribers = json.dumps([{"url": listener.url, "secret": SECRET}])
    url = engine.url.render_as_string(hide_password=False)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, url], env=os.environ | {"CLM_EVENTS__SUBSCRIBERS": subscribers}
    ) as process:
        assert arrived.wait(PATIENT_SECONDS)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    listener.before_answering = lambda: None
    assert deliver(telling(clm, [listener]))[0].sent == 2
    assert listener.ids == [ids[0], *ids]


def test_a_new_receiver_hears_of_the_last_day(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener, now = listen(), clm.clock()
    happen(engine, 2, now - 2 * DAY)
    recent = happen(engine, 1, now - DAY / 2)
    deliver(telling(clm, [listener]))
    assert listener.ids == recent


def test_an_alert_reaches_people_through_apprise(clm: Services, listen: Callable[[], Listener]) -> None:
    person = listen()
    alert = Alert(kind=AlertKind.AUDIT_BROKEN, subject="audit", message="Entry 7 was edited.", at=clm.clock())
    clm.alerts.record(alert)
    [told] = deliver(telling(clm, people=[person]))
    assert (told.sent, told.failing_since) == (1, None)
    assert [request.body["title"] for request in person.heard] == ["CLM #1: audit broken, audit"]
    assert person.heard[0].body["message"].startswith("Entry 7 was edited.")
    assert person.heard[0].body["type"] == "failure"


@pytest.mark.parametrize(
    ("url", "error"),
    [("nosuchservice://token", "none that apprise understands"), ("json://127.0.0.1:9", "did not take")],
    ids=["unknown service", "nobody there"],
)
def test_an_alert_that_cannot_be_sent_waits_and_says_why(url: str, error: str, clm: Services) -> None:
    clm.alerts.record(Alert(kind=AlertKind.AUDIT_BROKEN, subject="audit", message="look", at=clm.clock()))
    settings = clm.settings.model_copy(update={"alerts": AlertSettings(urls=(SecretStr(url),))})
    [told] = deliver(replace(clm, settings=settings))
    assert (told.sent, told.waiting) == (0, 1)
    assert told.last_error is not None
    assert error in told.last_error
    assert "token" not in told.name


def test_prefect_hears_of_an_event_by_our_id_about_the_model(
    clm: Services, engine: Engine, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    [event] = happen(engine, 1, clm.clock(), model_id=(model_id := f"m{uuid.uuid4().hex}"))
    [told] = deliver(clm)
    assert (told.name, told.sent, told.last_error) == ("prefect", 1, None)
    wanted = {"filter": {"id": {"id": [event]}}}
    for _ in range(50):
        found = httpx.post(f"{prefect_url}/events/filter", json=wanted).json()["events"]
        if found:
            break
        threading.Event().wait(0.1)
    assert [(each["event"], each["resource"]["prefect.resource.id"]) for each in found] == [
        ("clm.model_promoted", f"clm.model.{model_id}")
    ]
