"""Delivery of recorded events to Prefect and to subscribers, and of recorded alerts to people.

Each receiver gets the messages in order and at least once, independently of the other receivers. A failing
receiver is tried again after a wait that doubles with each failure, and causes an alert after ten minutes. A
message refused for three days becomes a dead letter, and delivery continues with the next message. The lock
on the row of a receiver admits one sending process at a time; a process killed before recording a success
leads to a second delivery under the same id.
"""

import hashlib
import json
import os
from base64 import b64encode
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.deliveries import ReceiverState
from clm_core.domain.errors import DeliveryFailed, SettingsError
from clm_core.domain.events import MODEL_RESOURCE, EventType
from clm_core.domain.secret_references import reference_text
from clm_core.domain.webhook_settings import Subscriber
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.receivers import ALERTS, EVENTS, GIVEN_UP_AFTER, OutgoingEvent, ReceiverStore, Stream, T
from clm_core.platform import notifications, tracing
from clm_core.platform.trusted_certificates import trusted_certificates
from clm_core.services import Services
from clm_core.settings import Settings

ALERT_AFTER = timedelta(minutes=10)
"""Time of continuous failure after which a receiver causes an alert."""
TIMEOUT_SECONDS = 10.0
CONCURRENT_RECEIVERS = 8
"""Number of receivers served at the same time."""
PREFECT = "prefect"
EVENT_IDS = ("job_id", "model_id", "version")
"""Keys of an event that a span shows."""


class DeliveryResult(ReceiverState):
    """State of a receiver after a delivery."""

    sent: int
    """Number of messages delivered just now."""


@dataclass(frozen=True)
class Receiver(Generic[T]):
    name: str
    """Name for people and for the row in the ledger, without secrets."""
    stream: Stream[T]
    send: Callable[[T], None]


class DeliveryStores(Protocol):
    """Stores that a delivery needs; `Services` is one."""

    @property
    def receivers(self) -> ReceiverStore: ...

    @property
    def alerts(self) -> AlertStore: ...

    @property
    def clock(self) -> Callable[[], datetime]: ...


@dataclass(frozen=True)
class AlertDelivery:
    """Stores of a delivery without other services."""

    receivers: ReceiverStore
    alerts: AlertStore
    clock: Callable[[], datetime]


def deliver_alerts(
    urls: Sequence[SecretStr], receivers: ReceiverStore, alerts: AlertStore, clock: Callable[[], datetime]
) -> list[DeliveryResult]:
    """Send the waiting alerts alone, for a process without settings of its own."""
    named = [_alert_receiver(url) for url in urls]
    return _deliver_all(AlertDelivery(receivers, alerts, clock), named)


@tracing.traced("deliveries")
def deliver(services: Services) -> list[DeliveryResult]:
    """Send the waiting events, then the waiting alerts, which include failures of event receivers."""
    settings = services.settings
    results = [
        *_deliver_all(services, event_receivers(settings, services.clock)),
        *_deliver_all(services, alert_receivers(settings)),
    ]
    _end_alerts_of_removed(services, {PREFECT, *(each.name for each in results)})
    return results


def event_receivers(settings: Settings, clock: Callable[[], datetime]) -> list[Receiver[OutgoingEvent]]:
    """Receivers of events: subscribers, the receiver of anchors, and Prefect where an address is known."""
    receivers = [_subscriber(each, clock) for each in settings.events.subscribers]
    if settings.audit.webhook is not None:
        receivers.append(_anchor_receiver(settings.audit.webhook, clock))
    if api := os.environ.get("PREFECT_API_URL"):
        receivers.append(Receiver(PREFECT, EVENTS, lambda event: _to_prefect(api, event)))
    return receivers


def alert_receivers(settings: Settings) -> list[Receiver[Any]]:
    return [_alert_receiver(url) for url in settings.alerts.urls]


def _deliver_all(stores: DeliveryStores, receivers: Sequence[Receiver[T]]) -> list[DeliveryResult]:
    with ThreadPoolExecutor(max_workers=CONCURRENT_RECEIVERS) as pool:
        # each receiver in a copy of the context, for its spans
        futures = [pool.submit(copy_context().run, deliver_to, stores, receiver) for receiver in receivers]
        return [future.result() for future in futures]


def deliver_to(stores: DeliveryStores, receiver: Receiver[T]) -> DeliveryResult:
    """Send the waiting events or alerts of a receiver, and alert a failure that lasts."""
    sent = 0
    while (accepted := _send_next(stores, receiver)) is not None:
        sent += accepted
    while _send_dead_letter(stores, receiver):
        sent += 1
    state = stores.receivers.state(receiver.name)
    _alert_failing(stores, state)
    _alert_given_up(stores, state)
    return DeliveryResult(sent=sent, **dict(state))


def _send_next(stores: DeliveryStores, receiver: Receiver[T]) -> bool | None:
    """True if the next message was accepted, False if given up as a dead letter, None if none is due."""
    with stores.receivers.turn(receiver.name, receiver.stream, stores.clock()) as turn:
        if turn is None:
            return None
        try:
            _send(receiver, turn.next)
        except (DeliveryFailed, SettingsError) as error:
            return False if turn.failed(str(error), stores.clock()) else None
        turn.accepted()
        return True


def _send(receiver: Receiver[T], message: T) -> None:
    with tracing.span("delivery", kind="client", receiver=receiver.name):
        tracing.annotate(**_facts_of(message))
        receiver.send(message)


def _facts_of(message: object) -> dict[str, object]:
    """Facts about a message for its span."""
    if not isinstance(message, OutgoingEvent):
        return {"message": type(message).__name__}
    ids = {name: message.payload[name] for name in EVENT_IDS if name in message.payload}
    return {"message": message.type, "event_id": message.id, **ids}


def _send_dead_letter(stores: DeliveryStores, receiver: Receiver[T]) -> bool:
    """True if the receiver accepted the next dead letter marked for a retry."""
    with stores.receivers.retry(receiver.name, receiver.stream) as retry:
        if retry is None:
            return False
        try:
            _send(receiver, retry.message)
        except (DeliveryFailed, SettingsError) as error:
            retry.failed(str(error), stores.clock())
            return False
        retry.accepted()
        return True


def _alert_failing(stores: DeliveryStores, state: ReceiverState) -> None:
    now = stores.clock()
    since = state.failing_since
    if since is None:
        stores.alerts.end(AlertKind.DELIVERY_FAILING, state.name, now)
    elif now - since >= ALERT_AFTER:
        message = (
            f"No delivery succeeded since {since:%Y-%m-%d %H:%M} UTC: {state.last_error}. Each message is "
            f"tried for {GIVEN_UP_AFTER.days} days. Repair the receiver, or remove it from the settings."
        )
        alert = Alert(kind=AlertKind.DELIVERY_FAILING, subject=state.name, message=message, at=now)
        stores.alerts.record(alert)


def _alert_given_up(stores: DeliveryStores, state: ReceiverState) -> None:
    message = (
        "Messages refused for days are dead letters now and are not sent any more. `clm deliveries show` "
        "lists the dead letters; once the receiver is repaired, `clm deliveries retry` sends them again."
    )
    lasting = message if state.given_up else None
    stores.alerts.settle(AlertKind.DELIVERY_GIVEN_UP, state.name, lasting, stores.clock())


def _end_alerts_of_removed(services: Services, receivers: Set[str]) -> None:
    """End the alerts of receivers removed from the settings."""
    for kind in (AlertKind.DELIVERY_FAILING, AlertKind.DELIVERY_GIVEN_UP):
        for alert in services.alerts.lasting(kind):
            if alert.subject not in receivers:
                services.alerts.end(kind, alert.subject, services.clock())


def _subscriber(subscriber: Subscriber, clock: Callable[[], datetime]) -> Receiver[OutgoingEvent]:
    name = f"subscriber {_without_secrets(subscriber.url)}"
    return Receiver(name, EVENTS, lambda event: _to_subscriber(subscriber, event, clock()))


def _anchor_receiver(subscriber: Subscriber, clock: Callable[[], datetime]) -> Receiver[OutgoingEvent]:
    """Receiver of the anchors of the audit alone; the other events count as delivered."""
    name = f"anchors {_without_secrets(subscriber.url)}"

    def send(event: OutgoingEvent) -> None:
        if event.type == EventType.AUDIT_ANCHORED:
            _to_subscriber(subscriber, event, clock())

    return Receiver(name, EVENTS, send)


def _alert_receiver(url: SecretStr) -> Receiver[Any]:
    name = f"alerts {reference_text(url) or _scheme_of(url.get_secret_value())}"
    return Receiver(name, ALERTS, lambda alert: notifications.send(url.get_secret_value(), alert))


def _to_subscriber(subscriber: Subscriber, event: OutgoingEvent, now: datetime) -> None:
    """Send an event as standardwebhooks.com specifies, signed over id, time and body.

    Args:
        now: time of this attempt; receivers refuse signatures older than minutes.
    """
    from standardwebhooks import Webhook

    body = json.dumps(event.published.model_dump(mode="json"), separators=(",", ":"), sort_keys=True)
    signature = Webhook(subscriber.secret.get_secret_value()).sign(str(event.id), now, body)
    headers = {
        "content-type": "application/json",
        "webhook-id": str(event.id),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
        **tracing.headers(),
    }
    _post(subscriber.url.get_secret_value(), body, headers)


def _to_prefect(api: str, event: OutgoingEvent) -> None:
    """Send an event to Prefect, for automations; unlike `emit_event`, a failure raises an error."""
    resource = f"{MODEL_RESOURCE}{event.subject}" if event.subject else f"clm.{event.type}"
    message = {
        "id": str(event.id),
        "occurred": event.at.isoformat(),
        "event": event.type,
        "resource": {"prefect.resource.id": resource},
        "payload": event.payload,
    }
    headers = {"content-type": "application/json"}
    if auth := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["authorization"] = f"Basic {b64encode(auth.encode()).decode()}"
    _post(f"{api}/events", json.dumps([message]), headers)


def _post(url: str, body: str, headers: dict[str, str]) -> None:
    """Post a body once, with a few attempts to connect.

    Raises:
        DeliveryFailed: no answer, or a status other than success; redirects are not followed.
    """
    import httpx
    import stamina

    try:
        for attempt in stamina.retry_context(on=httpx.ConnectError, attempts=3, wait_initial=0.2):
            # the body of the answer is not read
            with (
                attempt,
                httpx.stream(
                    "POST",
                    url,
                    content=body,
                    headers=headers,
                    timeout=TIMEOUT_SECONDS,
                    follow_redirects=False,
                    verify=trusted_certificates(),
                ) as answer,
            ):
                status = answer.status_code
                success = answer.is_success
    except httpx.HTTPError as error:
        raise DeliveryFailed(f"no answer ({type(error).__name__}: {error})") from error
    if not success:
        raise DeliveryFailed(f"the receiver answered with status {status}")


def _without_secrets(url: SecretStr) -> str:
    """Scheme, host and fingerprint of a URL; user, password, path and query may be secrets.

    A reference to the server of secrets stands for itself: the name outlasts a rotation, and asks no server.
    """
    if reference := reference_text(url):
        return reference
    parts = urlsplit(url.get_secret_value())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]} {_fingerprint(url.get_secret_value())}"


def _scheme_of(url: str) -> str:
    return f"{url.partition(':')[0]} {_fingerprint(url)}"


def _fingerprint(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:8]
