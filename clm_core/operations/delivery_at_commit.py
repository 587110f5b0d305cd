"""Delivery at once, in the process of the API: started by a signal at the commit of an event or alert.

Maintenance delivers once a minute as well: without an API process, and after a lost signal. The lock on the
row of a receiver keeps two processes from sending the same message.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from clm_core.domain.errors import CLMError
from clm_core.ledger import commit_signals
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.engine import open_engine
from clm_core.ledger.receivers import ReceiverStore
from clm_core.operations.delivery import (
    AlertDelivery,
    DeliveryResult,
    DeliveryStores,
    Receiver,
    alert_receivers,
    deliver_to,
    event_receivers,
)
from clm_core.platform.database import Database
from clm_core.platform.tracing import traced
from clm_core.settings import Settings

log = logging.getLogger("clm.delivery")
STOP_CHECKED_SECONDS = 1.0
"""Time between two looks for the request to stop."""
BEHIND_SECONDS = 5.0
"""Time between two looks at receivers with waiting messages, and between two attempts to listen."""


class Sender:
    """Deliveries to a receiver, in a separate thread while messages wait: a slow receiver delays no other."""

    def __init__(self, stores: DeliveryStores) -> None:
        self._stores = stores
        self._lock = threading.Lock()
        self._receiver: Receiver[Any] | None = None
        self._is_running = False
        self.is_behind = False
        """True if messages wait after the last delivery."""

    def wake(self, receiver: Receiver[Any]) -> None:
        """Deliver now, or once more after the delivery under way."""
        with self._lock:
            self._receiver = receiver
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._run, name=f"deliver {receiver.name}", daemon=True).start()

    def _run(self) -> None:
        while (receiver := self._take()) is not None:
            try:
                self.is_behind = _deliver(self._stores, receiver).waiting > 0
            except (CLMError, SQLAlchemyError) as error:
                self.is_behind = True
                log.warning(
                    "%s: no delivery now, the next in %g s: %s",
                    receiver.name,
                    BEHIND_SECONDS,
                    _first_line(error),
                )
            except Exception:
                self._is_running = False
                raise

    def _take(self) -> Receiver[Any] | None:
        with self._lock:
            receiver = self._receiver
            self._receiver = None
            self._is_running = receiver is not None
        return receiver


class DeliveryAtCommit:
    """Listener that wakes the senders of all receivers of the settings in force.

    Args:
        address: URL of the ledger's database for psycopg.
        load: settings in force, read at each look, so that a removed receiver gets nothing more.
    """

    def __init__(self, address: str, stores: DeliveryStores, load: Callable[[], Settings]) -> None:
        self._address = address
        self._stores = stores
        self._load = load
        self._senders = dict[str, Sender]()
        self._has_settings = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery-at-commit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the listener; a delivery under way ends by itself, or the next process repeats the delivery."""
        self._stopping.set()
        # the thread may be connecting to a server that does not answer, and ends with the process
        self._thread.join(2 * STOP_CHECKED_SECONDS)

    def _run(self) -> None:
        import psycopg

        while not self._stopping.is_set():
            try:
                with commit_signals.listening(self._address) as wait:
                    self._follow(wait)
            except psycopg.Error as error:
                log.warning(
                    "the ledger sends no signals, next attempt in %g s: %s",
                    BEHIND_SECONDS,
                    _first_line(error),
                )
                self._stopping.wait(BEHIND_SECONDS)

    def _follow(self, wait: Callable[[float], bool]) -> None:
        """Deliver now, since earlier signals are lost, after each signal, and again while messages wait."""
        is_due = True
        looked_at = 0.0
        while not self._stopping.is_set():
            if is_due:
                self._wake_all()
                looked_at = time.monotonic()
            has_signal = wait(STOP_CHECKED_SECONDS)
            is_due = has_signal or (self._is_behind and time.monotonic() - looked_at >= BEHIND_SECONDS)

    @property
    def _is_behind(self) -> bool:
        return not self._has_settings or any(sender.is_behind for sender in self._senders.values())

    def _wake_all(self) -> None:
        """Wake the senders of the receivers in the settings."""
        try:
            settings = self._load()
        except CLMError as error:
            log.warning("no delivery at once: %s", error)
            self._has_settings = False
            return
        self._has_settings = True
        events = event_receivers(settings, self._stores.clock)
        receivers = {each.name: each for each in chain(events, alert_receivers(settings))}
        self._senders = {name: self._senders.get(name) or Sender(self._stores) for name in receivers}
        for name, receiver in receivers.items():
            self._senders[name].wake(receiver)


@contextmanager
def delivery_at_commit(
    database: Database, clock: Callable[[], datetime], load: Callable[[], Settings]
) -> Iterator[None]:
    """Deliver at once while the block lasts, on separate connections: a slow receiver occupies one."""
    engine = open_engine(database.url("ledger", driver="psycopg"))
    stores = AlertDelivery(ReceiverStore(engine), AlertStore(engine), clock)
    delivery = DeliveryAtCommit(database.address("ledger"), stores, load)
    delivery.start()
    try:
        yield
    finally:
        delivery.stop()
        engine.dispose()


@traced("delivery at commit")
def _deliver(stores: DeliveryStores, receiver: Receiver[Any]) -> DeliveryResult:
    return deliver_to(stores, receiver)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
