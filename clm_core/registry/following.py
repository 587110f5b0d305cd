"""The version in production of a model, kept current: by the event stream of the API, and by polling.

An event only says when to look: the version that serves is the one behind MLflow's alias, read and verified
as by any other load. So a lost, repeated or forged event does no harm, and polling alone finds every change.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from clm_core.domain.errors import CLMError, NotFound, StreamBroken
from clm_core.domain.events import EventType
from clm_core.domain.published_events import PublishedEvent
from clm_core.platform.event_stream import ReceivedEvent, server_sent_events

log = logging.getLogger("clm.serving")
FOLLOWED = frozenset({EventType.MODEL_PROMOTED, EventType.MODEL_ROLLBACK, EventType.MODEL_HALTED})
"""Types of the events that change the version in production."""
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 30.0


class LoadedVersion(Protocol):
    """A loaded version."""

    @property
    def mlflow_version(self) -> int: ...


V = TypeVar("V", bound=LoadedVersion)


@dataclass(frozen=True)
class Callbacks(Generic[V]):
    """Functions called from the thread that follows; each is optional.

    A change found by polling has no event, and counts as a promotion.
    """

    promoted: Callable[[V, PublishedEvent | None], None] | None = None
    """Another version is in production and loaded."""
    rollback: Callable[[V, PublishedEvent | None], None] | None = None
    """An earlier version is in production again and loaded; without this function `promoted` is called."""
    halted: Callable[[PublishedEvent | None], None] | None = None
    """No version is in production: hold no position."""


@dataclass(frozen=True)
class ProductionSource(Generic[V]):
    """Reads of the version in production."""

    number: Callable[[], int | None]
    """MLflow's number of the version in production; None without one."""
    load: Callable[[], V]
    """Loads the version in production."""


class Followed(Generic[V]):
    """The version in production of a model, current until `close` or the end of the block.

    `served` is read at any time, from any thread. While MLflow does not answer, or the new version is
    refused, the version loaded last stays, and `problem` says why.
    """

    def __init__(
        self,
        model_id: str,
        source: ProductionSource[V],
        events: tuple[str, Mapping[str, str]] | None,
        callbacks: Callbacks[V],
        poll_seconds: float,
    ) -> None:
        """
        Args:
            events: address and headers of the event stream; None to poll alone.
            poll_seconds: time between two looks at the alias.
        """
        self.model_id = model_id
        self._source = source
        self._callbacks = callbacks
        self._poll_seconds = poll_seconds
        self._served: V | None = None
        self._problem: CLMError | None = None
        self._changes = 0
        self._seen = 0
        self._changed = threading.Condition()
        self._looking = threading.Lock()
        self._stopping = threading.Event()
        self._hang_up: Callable[[], None] | None = None
        self._threads = [threading.Thread(target=self._poll, name=f"poll {model_id}", daemon=True)]
        if events is not None:
            self._threads.append(
                threading.Thread(target=self._listen, args=events, name=f"follow {model_id}", daemon=True)
            )

    def start(self) -> Self:
        """Load the version in production, and begin to follow the alias.

        Raises:
            CLMError: the version in production cannot be loaded.
        """
        self._look(None)
        if self._problem is not None:
            raise self._problem
        self._seen = self._changes
        for thread in self._threads:
            thread.start()
        return self

    @property
    def served(self) -> V | None:
        """Version in production; None: hold no position."""
        return self._served

    @property
    def problem(self) -> CLMError | None:
        """Reason why the version in production could not be read at the last look; None after a success."""
        return self._problem

    def wait(self, seconds: float) -> bool:
        """Wait for another version, or for none, at most a number of seconds; True after a change since the
        last wait."""
        with self._changed:
            has_changed = self._changed.wait_for(lambda: self._changes != self._seen, seconds)
            self._seen = self._changes
        return has_changed

    def close(self) -> None:
        """Stop following; the loaded version can still be used."""
        self._stopping.set()
        if self._hang_up is not None:
            self._hang_up()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(2.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _poll(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            self._look(None)

    def _listen(self, url: str, headers: Mapping[str, str]) -> None:
        last_id: str | None = None
        wait = FIRST_WAIT_SECONDS
        while not self._stopping.is_set():
            opened_at = time.monotonic()
            try:
                for event in server_sent_events(url, headers, last_id, self._connected):
                    last_id = event.id
                    self._receive(event)
            except StreamBroken as error:
                if not self._stopping.is_set():
                    log.warning(
                        "%s: no event stream, %s. The alias is read every %g s.",
                        self.model_id,
                        error,
                        self._poll_seconds,
                    )
            # a stream ends by itself after minutes
            is_steady = time.monotonic() - opened_at > MAX_WAIT_SECONDS
            wait = FIRST_WAIT_SECONDS if is_steady else min(2 * wait, MAX_WAIT_SECONDS)
            self._stopping.wait(wait)

    def _connected(self, hang_up: Callable[[], None]) -> None:
        self._hang_up = hang_up
        if self._stopping.is_set():
            hang_up()
        # events before the first connection are not sent
        self._look(None)

    def _receive(self, event: ReceivedEvent) -> None:
        if event.kind not in FOLLOWED:
            return
        published = PublishedEvent.model_validate_json(event.data)
        if published.data.get("model_id") == self.model_id:
            self._look(published)

    def _look(self, event: PublishedEvent | None) -> None:
        """Read the alias, and load the version behind it after a change."""
        with self._looking:
            before = self._served
            try:
                number = self._source.number()
                if number != (None if before is None else before.mlflow_version):
                    self._served = None if number is None else self._source.load()
                self._problem = None
            except NotFound:
                # taken away between the two reads
                self._served = None
                self._problem = None
            except CLMError as error:
                self._problem = error
                log.warning("%s: the version in production cannot be read: %s", self.model_id, error)
                return
            after = self._served
            if after is before:
                return
            with self._changed:
                self._changes += 1
                self._changed.notify_all()
        if self._threads[0].is_alive():
            self._notify(after, event)

    def _notify(self, served: V | None, event: PublishedEvent | None) -> None:
        try:
            if served is None:
                if self._callbacks.halted is not None:
                    self._callbacks.halted(event)
                return
            is_rollback = event is not None and event.type == EventType.MODEL_ROLLBACK
            callback = self._callbacks.rollback if is_rollback else None
            callback = callback or self._callbacks.promoted
            if callback is not None:
                callback(served, event)
        except Exception:
            log.exception("%s: a callback failed; following goes on", self.model_id)
