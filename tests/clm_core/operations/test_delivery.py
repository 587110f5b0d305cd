"""Delivery of recorded messages: in order, at least once, to each receiver independently."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP
from apprise.plugins.slack import NotifySlack
from patience import PATIENT_SECONDS
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr
from secret_servers import SecretServer
from sqlalchemy import Engine, create_engine, text
from standardwebhooks import Webhook
from trace_receiver import collecting

from clm_core.domain.actors import Actor
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.errors import NotFound
from clm_core.domain.events import EventType, ProductionHalted
from clm_core.domain.operation_settings import AlertSettings
from clm_core.domain.published_events import PublishedEvent
from clm_core.domain.secret_references import references_of
from clm_core.domain.tracing_settings import TracingSettings
from clm_core.domain.vocabulary import Role
from clm_core.domain.webhook_settings import EventSettings, Subscriber
from clm_core.ledger import events
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.audit_log import entries
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.receivers import ReceiverStore
from clm_core.operations import delivery
from clm_core.operations.delivery import DeliveryResult, deliver
from clm_core.operations.delivery_at_commit import DeliveryAtCommit
from clm_core.platform import tracing
from clm_core.services import Services
from clm_core.settings import Settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ROTATED = "whsec_plJ3nmyCDGBKInavdOK15jsl8nUjcLkM"
DAY = timedelta(days=1)
ADMIN = Actor(name="ada", role=Role.ADMIN)


@dataclass
class Request:
    body: Any
    raw: str
    headers: dict[str, str]


@dataclass
class Listener:
    """A local receiver that keeps the requests, and answers with the status of the test."""

    url: str = ""
    status: int = 204
    answer: bytes = b""
    requests: list[Request] = field(default_factory=list)
    before_answering: Callable[[], object] = lambda: None

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]


@pytest.fixture
def listen() -> Iterator[Callable[[], Listener]]:
    servers = []

    def start() -> Listener:
        listener = Listener()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"])).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                listener.requests.append(Request(json.loads(raw), raw, headers))
                listener.before_answering()
                self.send_response(listener.status)
                self.send_header("location", f"{listener.url}/elsewhere")
                self.send_header("content-length", str(len(listener.answer)))
                self.end_headers()
                if listener.answer:
                    self.wfile.write(listener.answer)

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
    """Engine of an empty ledger."""
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


def with_receivers(
    services: Services, subscribers: Sequence[Listener] = (), alert_receivers: Sequence[Listener] = ()
) -> Services:
    events = EventSettings(
        subscribers=tuple(Subscriber(url=each.url, secret=SecretStr(SECRET)) for each in subscribers)
    )
    alerts = AlertSettings(
        urls=tuple(SecretStr(each.url.replace("http", "json")) for each in alert_receivers)
    )
    settings = services.settings.model_copy(update={"events": events, "alerts": alerts})
    return replace(services, settings=settings)


def after(services: Services, wait: timedelta) -> Services:
    return replace(services, clock=lambda: services.clock() + wait)


def record_events(engine: Engine, count: int, at: datetime, model_id: str = "a_model_1h") -> list[str]:
    """Record events in the outbox; the ids in order."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    row = text("INSERT INTO outbox (id, type, payload, at) VALUES (:id, 'clm.model_promoted', :payload, :at)")
    for number, each in enumerate(ids):
        payload = json.dumps({"model_id": model_id, "promotion_id": number})
        with engine.begin() as connection:
            connection.execute(row, {"id": each, "payload": payload, "at": at})
    return ids


def test_a_subscriber_gets_every_event_once_in_order_and_signed(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    ids = record_events(engine, 3, clm.clock())
    [result] = deliver(with_receivers(clm, [listener]))
    assert (result.sent, result.waiting, result.last_error) == (3, 0, None)
    assert listener.ids == ids
    assert [request.body["data"]["promotion_id"] for request in listener.requests] == [0, 1, 2]
    assert set(listener.requests[0].body) == set(PublishedEvent.model_fields)
    for request in listener.requests:
        assert Webhook(SECRET).verify(request.raw, request.headers)["type"] == "clm.model_promoted"
    assert deliver(with_receivers(clm, [listener]))[0].sent == 0
    assert len(listener.requests) == 3


def test_a_delivery_is_a_span_whose_context_the_subscriber_gets(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    up = listen()
    down = listen()
    down.status = 503
    [event_id] = record_events(engine, 1, clm.clock())
    with collecting() as collector, tracing.exported(TracingSettings(endpoint=collector.url)):
        deliver(with_receivers(clm, [up, down]))
    deliveries = [each for each in collector.spans if each.name == "delivery"]
    assert {each.parent for each in deliveries} == {collector.named("deliveries").span_id}
    assert sorted(each.is_error for each in deliveries) == [False, True]
    done = next(each for each in deliveries if not each.is_error)
    assert done.attributes["clm.event_id"] == event_id
    assert done.attributes["clm.model_id"] == "a_model_1h"
    assert up.requests[0].headers["traceparent"][:-2] == f"00-{done.trace_id}-{done.span_id}-"


def test_a_failing_subscriber_delays_no_other_and_gets_every_event_later(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    up = listen()
    down = listen()
    down.status = 503
    both = with_receivers(clm, [up, down])
    ids = record_events(engine, 3, clm.clock())
    results = deliver(both)
    assert [(each.sent, each.waiting) for each in results] == [(3, 0), (0, 3)]
    assert results[1].last_error == "the receiver answered with status 503"
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
    now = clm.clock()
    waits = list[float]()
    record_events(engine, 1, now)
    for _ in range(9):
        [result] = deliver(replace(with_receivers(clm, [listener]), clock=functools.partial(moment, now)))
        assert result.retry_at is not None
        waits.append((result.retry_at - now).total_seconds())
        now = result.retry_at
    assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900]


def test_the_wait_after_a_failure_does_not_grow_by_the_step_when_the_clock_is_put_back(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    listener.status = 500
    record_events(engine, 1, clm.clock())
    deliver(after(with_receivers(clm, [listener]), timedelta(hours=6)))
    assert len(listener.requests) == 1
    deliver(with_receivers(clm, [listener]))
    assert len(listener.requests) == 2


def deliver_every(pause: timedelta, services: Services, listener: Listener, end: datetime) -> DeliveryResult:
    now = services.clock()
    while now < end:
        [result] = deliver(
            replace(with_receivers(services, [listener]), clock=functools.partial(moment, now))
        )
        now += pause
    return result


def test_an_event_refused_for_three_days_is_a_dead_letter_and_the_next_is_sent(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    now = clm.clock()
    listener.status = 400
    first = record_events(engine, 1, now)[0]
    second = record_events(engine, 1, now + 2 * DAY)[0]
    result = deliver_every(DAY / 4, clm, listener, now + 2.9 * DAY)
    assert (result.given_up, result.waiting, set(listener.ids)) == (0, 2, {first})
    result = deliver_every(DAY / 10, after(clm, 2.9 * DAY), listener, now + 3.1 * DAY)
    assert (result.given_up, result.waiting, set(listener.ids)) == (1, 1, {first, second})
    [letter] = clm.receivers.dead()
    assert (letter.about, letter.error) == (
        "clm.model_promoted a_model_1h",
        "the receiver answered with status 400",
    )
    assert letter.attempts == listener.ids.count(first)
    kinds = {AlertKind.DELIVERY_FAILING, AlertKind.DELIVERY_GIVEN_UP}
    assert {alert.kind for alert in clm.alerts.lasting()} == kinds


def test_an_old_event_is_tried_a_few_times_before_the_dead_letter(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    now = clm.clock()
    record_events(engine, 1, now)
    deliver(with_receivers(clm, [listener]))
    [old] = record_events(engine, 1, now)
    listener.status = 500
    deliver_every(timedelta(minutes=15), after(clm, 10 * DAY), listener, now + 10.1 * DAY)
    assert (listener.ids.count(old), len(clm.receivers.dead())) == (5, 1)


def test_a_dead_letter_marked_for_retry_is_sent_once_more(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    listener.status = 500
    ids = record_events(engine, 2, clm.clock())
    one = with_receivers(clm, [listener])
    [name] = [result.name for result in deliver(one)]
    for _ in ids:
        clm.receivers.skip(name, "it cannot be read", ADMIN, clm.clock())
    assert [result.given_up for result in deliver(one)] == [2]
    assert clm.receivers.ask_retry(clm.receivers.named("127.0.0.1")) == 2
    deliver(one)
    assert [letter.retry_asked for letter in clm.receivers.dead()] == [True, False]
    clm.receivers.ask_retry(name)
    listener.status = 200
    [result] = deliver(one)
    assert (result.sent, result.given_up, sorted(listener.ids[-2:])) == (2, 0, sorted(ids))
    assert clm.alerts.lasting(AlertKind.DELIVERY_GIVEN_UP) == []


def test_skipping_and_forgetting_are_in_the_audit_with_the_actor(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    listener.status = 500
    record_events(engine, 1, clm.clock())
    [result] = deliver(with_receivers(clm, [listener]))
    letter = clm.receivers.skip(result.name, "nobody needs it", ADMIN, clm.clock())
    with pytest.raises(NotFound, match="nothing to skip"):
        clm.receivers.skip(result.name, "nor this", ADMIN, clm.clock())
    assert clm.receivers.forget(result.name, ADMIN, clm.clock()) == 1
    assert clm.receivers.forget(result.name, ADMIN, clm.clock()) == 0
    skipped, forgotten = entries(engine, result.name)[::-1]
    assert (skipped.action, skipped.actor) == ("delivery_skipped", "ada")
    assert skipped.details == {"seq": letter.seq, "about": letter.about, "reason": "nobody needs it"}
    assert (forgotten.action, forgotten.details) == ("dead_letters_forgotten", {"seq": [letter.seq]})


def test_a_receiver_is_found_by_an_unambiguous_part_of_the_name(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    both = with_receivers(clm, [listen(), listen()])
    names = [result.name for result in deliver(both)]
    assert clm.receivers.named(names[1].split()[-1]) == names[1]
    with pytest.raises(NotFound, match="matches 2 receivers"):
        clm.receivers.named("subscriber")


def test_a_redirect_is_a_failure_and_is_not_followed(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    listener.status = 307
    record_events(engine, 1, clm.clock())
    [result] = deliver(with_receivers(clm, [listener]))
    assert (result.last_error, len(listener.requests)) == ("the receiver answered with status 307", 1)


def test_a_subscriber_without_an_answer_fails_after_the_timeout(
    clm: Services, engine: Engine, listen: Callable[[], Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 0.3)
    listener = listen()
    released = threading.Event()
    listener.before_answering = lambda: released.wait(PATIENT_SECONDS)
    record_events(engine, 1, clm.clock())
    [result] = deliver(with_receivers(clm, [listener]))
    released.set()
    assert result.last_error is not None
    assert "no answer (ReadTimeout" in result.last_error


def test_a_refused_connection_is_a_failure_with_the_cause(clm: Services, engine: Engine) -> None:
    record_events(engine, 1, clm.clock())
    [result] = deliver(with_receivers(clm, [Listener(url="http://127.0.0.1:9")]))
    assert result.last_error is not None
    assert "ConnectError" in result.last_error


def test_a_failing_receiver_causes_one_alert_after_ten_minutes_until_recovery(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    down = listen()
    person = listen()
    down.status = 500
    both = with_receivers(clm, [down], [person])
    record_events(engine, 1, clm.clock())
    for minutes in (0, 5, 11, 40, 70):
        deliver(after(both, timedelta(minutes=minutes)))
    [alert] = clm.alerts.lasting(AlertKind.DELIVERY_FAILING)
    assert alert.subject.startswith(f"subscriber {down.url}")
    assert [request.body["title"] for request in person.requests] == [
        f"CLM #{alert.seq}: delivery failing, {alert.subject}"
    ]
    down.status = 200
    deliver(after(both, timedelta(minutes=100)))
    assert clm.alerts.lasting() == []


def test_a_receiver_removed_from_the_settings_has_no_open_alert(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    down = listen()
    down.status = 500
    record_events(engine, 1, clm.clock())
    for minutes in (0, 11):
        deliver(after(with_receivers(clm, [down]), timedelta(minutes=minutes)))
    assert clm.alerts.lasting() != []
    assert deliver(with_receivers(clm)) == []
    assert clm.alerts.lasting() == []


def test_two_concurrent_deliveries_send_a_receiver_each_event_once(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    arrived = threading.Event()
    released = threading.Event()
    listener.before_answering = lambda: (arrived.set(), released.wait(PATIENT_SECONDS))
    ids = record_events(engine, 3, clm.clock())
    answers = list[DeliveryResult]()
    first = threading.Thread(target=lambda: answers.extend(deliver(with_receivers(clm, [listener]))))
    first.start()
    assert arrived.wait(PATIENT_SECONDS)
    assert deliver(with_receivers(clm, [listener]))[0].sent == 0
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


def test_an_event_sent_by_a_killed_process_is_sent_again_under_the_same_id(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    arrived = threading.Event()
    ids = record_events(engine, 2, clm.clock())
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
    assert deliver(with_receivers(clm, [listener]))[0].sent == 2
    assert listener.ids == [ids[0], *ids]


def test_a_new_receiver_gets_the_events_of_the_last_day(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    now = clm.clock()
    record_events(engine, 2, now - 2 * DAY)
    recent = record_events(engine, 1, now - DAY / 2)
    deliver(with_receivers(clm, [listener]))
    assert listener.ids == recent


def test_an_alert_reaches_people_through_apprise(clm: Services, listen: Callable[[], Listener]) -> None:
    person = listen()
    alert = Alert(kind=AlertKind.AUDIT_BROKEN, subject="audit", message="Entry 7 was edited.", at=clm.clock())
    clm.alerts.record(alert)
    [result] = deliver(with_receivers(clm, alert_receivers=[person]))
    assert (result.sent, result.failing_since) == (1, None)
    assert [request.body["title"] for request in person.requests] == ["CLM #1: audit broken, audit"]
    assert person.requests[0].body["message"].startswith("Entry 7 was edited.")
    assert person.requests[0].body["type"] == "failure"


def test_the_end_of_a_condition_is_sent_to_the_people_who_were_alerted(
    clm: Services, listen: Callable[[], Listener]
) -> None:
    person = listen()
    clm.alerts.record(Alert(kind=AlertKind.STALE_BARS, subject="a_model_1h", message="old", at=clm.clock()))
    clm.alerts.end(AlertKind.STALE_BARS, "a_model_1h", clm.clock())
    deliver(with_receivers(clm, alert_receivers=[person]))
    sent = [(request.body["title"], request.body["type"]) for request in person.requests]
    assert sent == [
        ("CLM #1: stale bars, a_model_1h", "failure"),
        ("CLM #2: recovered from stale bars, a_model_1h", "success"),
    ]
    assert person.requests[1].body["message"].startswith("The condition of alert #1, since 20")
    assert [alert.seq for alert in clm.alerts.newest()] == [1]
    assert clm.alerts.lasting() == []


def through(clm: Services, url: str) -> None:
    settings = clm.settings.model_copy(update={"alerts": AlertSettings(urls=(SecretStr(url),))})
    [result] = deliver(replace(clm, settings=settings))
    assert result.last_error is None


def test_pagerduty_opens_an_incident_for_a_condition_resolves_the_same_one_and_pages_no_information(
    clm: Services, listen: Callable[[], Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields of the Events API v2: developer.pagerduty.com/docs/send-alert-event."""
    pagerduty = listen()
    pagerduty.status = 202
    monkeypatch.setitem(PAGERDUTY_API_LOOKUP, "eu", f"{pagerduty.url}/v2/enqueue")
    key = "a" * 32
    at = clm.clock()
    clm.alerts.record(Alert(kind=AlertKind.MODEL_HALTED, subject="a_model_1h", message="hard stop", at=at))
    clm.alerts.end(AlertKind.MODEL_HALTED, "a_model_1h", at)
    clm.alerts.record(Alert(kind=AlertKind.JOB_FAILED, subject="a job", message="no bars", at=at))
    clm.alerts.record(Alert(kind=AlertKind.LOW_SCORE, subject="a_model_1h@v1", message="47.55", at=at))
    through(clm, f"pagerduty://{key}@api/desk?region=eu")
    opened, resolved, happened = [request.body for request in pagerduty.requests]
    assert opened == {
        "routing_key": key,
        "event_action": "trigger",
        "dedup_key": "clm/model_halted/a_model_1h",
        "client": "CLM",
        "payload": {
            "summary": "CLM #1: model halted, a_model_1h: hard stop",
            "source": "desk",
            "component": "Notification",
            "severity": "critical",
            "timestamp": at.isoformat(),
            "custom_details": {"message": "hard stop", "subject": "a_model_1h", "kind": "model_halted"},
        },
    }
    assert (resolved["event_action"], resolved["dedup_key"]) == ("resolve", opened["dedup_key"])
    assert (happened["event_action"], happened["dedup_key"]) == ("trigger", "clm/job_failed/a job/3")
    assert happened["payload"]["severity"] == "warning"


def test_slack_gets_the_alert_and_the_recovery_in_its_colours(
    clm: Services, listen: Callable[[], Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attachments of an incoming webhook: api.slack.com/reference/messaging/attachments."""
    slack = listen()
    slack.status = 200
    slack.answer = b"ok"
    monkeypatch.setattr(NotifySlack, "webhook_url", f"{slack.url}/services")
    clm.alerts.record(Alert(kind=AlertKind.STALE_BARS, subject="a_model_1h", message="old", at=clm.clock()))
    clm.alerts.end(AlertKind.STALE_BARS, "a_model_1h", clm.clock())
    through(clm, "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#trading")
    alerted, recovered = [request.body for request in slack.requests]
    assert alerted["channel"] == "#trading"
    assert [each["attachments"][0]["title"] for each in (alerted, recovered)] == [
        "CLM #1: stale bars, a_model_1h",
        "CLM #2: recovered from stale bars, a_model_1h",
    ]
    assert alerted["attachments"][0]["color"] != recovered["attachments"][0]["color"]


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("nosuchservice://token", "apprise does not understand a URL"),
        ("json://127.0.0.1:9", "was not accepted"),
    ],
    ids=["unknown service", "nobody there"],
)
def test_an_alert_that_cannot_be_sent_waits_with_the_reason(url: str, error: str, clm: Services) -> None:
    clm.alerts.record(Alert(kind=AlertKind.AUDIT_BROKEN, subject="audit", message="look", at=clm.clock()))
    settings = clm.settings.model_copy(update={"alerts": AlertSettings(urls=(SecretStr(url),))})
    [result] = deliver(replace(clm, settings=settings))
    assert (result.sent, result.waiting) == (0, 1)
    assert result.last_error is not None
    assert error in result.last_error
    assert "token" not in result.name


def test_prefect_gets_an_event_with_the_id_and_the_model(
    clm: Services, engine: Engine, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    [event] = record_events(engine, 1, clm.clock(), model_id=(model_id := f"m{uuid.uuid4().hex}"))
    [result] = deliver(clm)
    assert (result.name, result.sent, result.last_error) == ("prefect", 1, None)
    filters = {"filter": {"id": {"id": [event]}}}
    for _ in range(50):
        events = httpx.post(f"{prefect_url}/events/filter", json=filters).json()["events"]
        if events:
            break
        threading.Event().wait(0.1)
    assert [(each["event"], each["resource"]["prefect.resource.id"]) for each in events] == [
        ("clm.model_promoted", f"clm.model.{model_id}")
    ]


def test_receivers_in_the_server_of_secrets_keep_their_place_when_a_secret_is_rotated(
    clm: Services,
    engine: Engine,
    listen: Callable[[], Listener],
    bao: SecretServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", bao.token())
    monkeypatch.setattr("clm_core.platform.secrets.REREAD_AFTER_SECONDS", 0.0)
    listener = listen()
    path = bao.new_path(url=listener.url, key=SECRET)
    subscriber = {"url": f"vault://{path}#url", "secret": f"vault://{path}#key"}
    settings = Settings(home=clm.settings.home, vault=bao.settings(), events={"subscribers": [subscriber]})
    clm = replace(clm, settings=settings)
    [first] = record_events(engine, 1, clm.clock())
    [result] = deliver(clm)
    assert (result.name, result.sent) == (f"subscriber vault://{path}#url", 1)
    bao.write(path, url=f"{listener.url}/moved", key=ROTATED)
    for _, reference in references_of(settings):
        reference.read_again()
    [second] = record_events(engine, 1, clm.clock())
    [result] = deliver(clm)
    assert (result.name, result.sent) == (f"subscriber vault://{path}#url", 1)
    assert listener.ids == [first, second]
    assert Webhook(ROTATED).verify(listener.requests[1].raw, listener.requests[1].headers)
    bao.delete(path)
    in_new_process = Settings(home=settings.home, vault=settings.vault, events={"subscribers": [subscriber]})
    record_events(engine, 1, clm.clock())
    [failing] = deliver(replace(clm, settings=in_new_process))
    assert f"events.subscribers.0.secret is vault://{path}#key, which cannot" in str(failing.last_error)
    assert failing.waiting == 1


@contextmanager
def delivering_at_commit(services: Services, engine: Engine) -> Iterator[list[Settings]]:
    """A delivery at commit while the block lasts; the last of the yielded settings are in force."""
    address = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    in_force = [services.settings]
    at_commit = DeliveryAtCommit(address, services, lambda: in_force[-1])
    at_commit.start()
    try:
        yield in_force
    finally:
        at_commit.stop()


def commit_event(engine: Engine, now: datetime) -> str:
    """Commit an event; the id."""
    halted = ProductionHalted(
        promotion_id=1, model_id="a_model_1h", previous_version="v1", actor="ada", reason="test"
    )
    with engine.begin() as connection:
        events.record(connection, EventType.MODEL_HALTED, halted, now)
        newest = connection.execute(text("SELECT id FROM outbox ORDER BY seq DESC LIMIT 1"))
        return str(newest.scalar_one())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_commit_is_delivered_at_once_past_a_receiver_that_hangs_and_never_to_a_removed_one(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    prompt = listen()
    hanging = listen()
    removed = listen()
    answered = threading.Event()
    hanging.before_answering = lambda: answered.wait(PATIENT_SECONDS)
    everyone = with_receivers(clm, [prompt, hanging, removed])
    with delivering_at_commit(everyone, engine) as in_force:
        ids = [commit_event(engine, clm.clock())]
        # an event before the first look would need no signal
        until(lambda: prompt.ids == removed.ids == hanging.ids == ids)
        until(lambda: not any(removed.url in thread.name for thread in threading.enumerate()))
        in_force.append(with_receivers(clm, [prompt, hanging]).settings)
        ids += [commit_event(engine, clm.clock()) for _ in range(3)]
        until(lambda: prompt.ids == ids)
        assert (hanging.ids, removed.ids) == (ids[:1], ids[:1])
        answered.set()
        until(lambda: hanging.ids == ids)


def test_two_processes_that_deliver_at_commit_send_each_event_once_and_also_alerts(
    clm: Services, engine: Engine, listen: Callable[[], Listener]
) -> None:
    listener = listen()
    alerted = listen()
    both = with_receivers(clm, [listener], [alerted])
    with delivering_at_commit(both, engine), delivering_at_commit(both, engine):
        ids = [commit_event(engine, clm.clock()) for _ in range(20)]
        until(lambda: len(listener.ids) >= len(ids))
        clm.alerts.record(Alert(kind=AlertKind.JOB_FAILED, subject="job", message="test", at=clm.clock()))
        until(lambda: bool(alerted.requests))
    assert listener.ids == ids
