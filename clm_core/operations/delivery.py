"""Tells others what happened: events to Prefect and to subscribers, alerts to people.

What is to be told was recorded with what it is about; here it is sent, in order and at least once, to each
receiver at its own pace. A receiver that is down holds up nobody else: it is tried again after a wait that
doubles, and after a while that is an alert itself. What it has not taken after three days becomes a dead
letter, and it is told the next. One process at a time tells a receiver something, by the lock of its row;
killed before it could record that, the next one tells it again, under the same id.
"""

import hashlib
import json
import os
from base64 import b64encode
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic
from urllib.parse import urlsplit

from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.deliveries import ReceiverState
from clm_core.domain.errors import DeliveryFailed, SettingsError
from clm_core.ledger.receivers import ALERTS, EVENTS, GIVEN_UP_AFTER, OutgoingEvent, Stream, T
from clm_core.platform import notifications
from clm_core.services import Services
from clm_core.settings import Subscriber

ALERT_AFTER = timedelta(minutes=10)
"""How long a receiver may fail before somebody is told."""
ANSWER_WITHIN_SECONDS = 10.0
AT_ONCE = 8
"""Receivers that are told something at the same time."""
PREFECT = "prefect"


class Delivery(ReceiverState):
    """How a receiver stands after it was told something just now."""

    sent: int


@dataclass(frozen=True)
class Receiver(Generic[T]):
    name: str
    """For people and for its row; without anything secret."""
    stream: Stream[T]
    send: Callable[[T], None]


def deliver(services: Services) -> list[Delivery]:
    """Send what is waiting; events before alerts, so that somebody hears of a receiver that fails."""
    settings = services.settings
    to_programs = [_subscriber(each) for each in settings.events.subscribers]
    if api := os.environ.get("PREFECT_API_URL"):
        to_programs.append(Receiver(PREFECT, EVENTS, lambda event: _to_prefect(api, event)))
    to_people = [_person(url.get_secret_value()) for url in settings.alerts.urls]
    told = [*_tell_all(services, to_programs), *_tell_all(services, to_people)]
    _forget_removed(services, {PREFECT, *(each.name for each in told)})
    return told


def _tell_all(services: Services, receivers: Sequence[Receiver[T]]) -> list[Delivery]:
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return list(pool.map(lambda receiver: _tell(services, receiver), receivers))


def _tell(services: Services, receiver: Receiver[T]) -> Delivery:
    sent = 0
    while (took := _tell_next(services, receiver)) is not None:
        sent += took
    while _tell_again(services, receiver):
        sent += 1
    state = services.receivers.state(receiver.name)
    _alert_failing(services, state)
    _alert_given_up(services, state)
    return Delivery(sent=sent, **dict(state))


def _tell_next(services: Services, receiver: Receiver[T]) -> bool | None:
    """Whether it took another one, or that was given up; None: there is none for it now."""
    with services.receivers.turn(receiver.name, receiver.stream, services.clock()) as turn:
        if turn is None:
            return None
        try:
            receiver.send(turn.next)
        except (DeliveryFailed, SettingsError) as error:
            return False if turn.failed(str(error), services.clock()) else None
        turn.took()
        return True


def _tell_again(services: Services, receiver: Receiver[T]) -> bool:
    """Whether it took another dead letter that somebody wants sent again."""
    with services.receivers.retry(receiver.name, receiver.stream) as retry:
        if retry is None:
            return False
        try:
            receiver.send(retry.told)
        except (DeliveryFailed, SettingsError) as error:
            retry.failed(str(error), services.clock())
            return False
        retry.took()
        return True


def _alert_failing(services: Services, state: ReceiverState) -> None:
    now, since = services.clock(), state.failing_since
    if since is None:
        services.alerts.end(AlertKind.DELIVERY_FAILING, state.name, now)
    elif now - since >= ALERT_AFTER:
        message = (
            f"It has taken nothing since {since:%Y-%m-%d %H:%M} UTC: {state.last_error}. Each thing is tried "
            f"again for {GIVEN_UP_AFTER.days} days. Repair it, or take it out of the settings."
        )
        alert = Alert(kind=AlertKind.DELIVERY_FAILING, subject=state.name, message=message, at=now)
        services.alerts.record(alert)


def _alert_given_up(services: Services, state: ReceiverState) -> None:
    now = services.clock()
    if not state.given_up:
        services.alerts.end(AlertKind.DELIVERY_GIVEN_UP, state.name, now)
        return
    message = (
        "Something was not taken for days and is not sent by itself any more. `clm deliveries show` lists "
        "it; once the receiver is repaired, `clm deliveries retry` sends it again."
    )
    alert = Alert(kind=AlertKind.DELIVERY_GIVEN_UP, subject=state.name, message=message, at=now)
    services.alerts.record(alert)


def _forget_removed(services: Services, receivers: Set[str]) -> None:
    """What is no longer in the settings fails nobody."""
    for kind in (AlertKind.DELIVERY_FAILING, AlertKind.DELIVERY_GIVEN_UP):
        for alert in services.alerts.lasting(kind):
            if alert.subject not in receivers:
                services.alerts.end(kind, alert.subject, services.clock())


def _subscriber(subscriber: Subscriber) -> Receiver[OutgoingEvent]:
    name = f"subscriber {_shown(subscriber.url.get_secret_value())}"
    return Receiver(name, EVENTS, lambda event: _to_subscriber(subscriber, event))


def _person(url: str) -> Receiver[Any]:
    name = f"alerts {url.partition(':')[0]} {_fingerprint(url)}"
    return Receiver(name, ALERTS, lambda alert: notifications.send(url, alert))


def _to_subscriber(subscriber: Subscriber, event: OutgoingEvent) -> None:
    """As standardwebhooks.com says: a signature over id, time and body."""
    from standardwebhooks import Webhook

    told = {"type": event.type, "timestamp": event.at.isoformat(), "data": event.payload}
    body = json.dumps(told, separators=(",", ":"), sort_keys=True)
    # of this attempt: receivers refuse what is older than minutes
    now = datetime.now(UTC)
    signature = Webhook(subscriber.secret.get_secret_value()).sign(str(event.id), now, body)
    headers = {
        "content-type": "application/json",
        "webhook-id": str(event.id),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    _post(subscriber.url.get_secret_value(), body, headers)


def _to_prefect(api: str, event: OutgoingEvent) -> None:
    """An event of Prefect's own, for its automations; unlike `emit_event`, this hears of a failure."""
    subject = f"model.{event.subject}" if event.subject else event.type
    told = {
        "id": str(event.id),
        "occurred": event.at.isoformat(),
        "event": event.type,
        "resource": {"prefect.resource.id": f"clm.{subject}"},
        "payload": event.payload,
    }
    headers = {"content-type": "application/json"}
    if auth := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["authorization"] = f"Basic {b64encode(auth.encode()).decode()}"
    _post(f"{api}/events", json.dumps([told]), headers)


def _post(url: str, body: str, headers: dict[str, str]) -> None:
    """
    Raises:
        DeliveryFailed: no answer, or any but one of success; a redirect is none.
    """
    import httpx
    import stamina

    try:
        for attempt in stamina.retry_context(on=httpx.ConnectError, attempts=3, wait_initial=0.2):
            # what it says beyond its status is not read
            with (
                attempt,
                httpx.stream(
                    "POST",
                    url,
                    content=body,
                    headers=headers,
                    timeout=ANSWER_WITHIN_SECONDS,
                    follow_redirects=False,
                ) as answer,
            ):
                status, success = answer.status_code, answer.is_success
    except httpx.HTTPError as error:
        raise DeliveryFailed(f"no answer ({type(error).__name__}: {error})") from error
    if not success:
        raise DeliveryFailed(f"it answered with status {status}")


def _shown(url: str) -> str:
    """Without user, password, path and query, which may be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]} {_fingerprint(url)}"


def _fingerprint(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:8]
