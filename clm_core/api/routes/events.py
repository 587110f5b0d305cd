"""Server-sent events: the outbox as a live stream."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.sse import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from clm_core.api.auth import Authenticated
from clm_core.api.context import Connected
from clm_core.domain.errors import TooManyRequests
from clm_core.domain.published_events import StreamedEvent, event_schema
from clm_core.ledger.receivers import EVENTS, OutgoingEvent, ReceiverStore

POLL_SECONDS = 0.2
"""Time between two looks at the outbox, which all streams share."""
LOOKS_BETWEEN_CLOCKS = 10
"""Number of looks between two reads of the clock, which ends a stream."""
MAX_DURATION = timedelta(minutes=5)
"""Maximum duration of a stream; on reconnection the token is checked again, as it may be revoked."""
BATCH_SIZE = 100

LastEventId = Annotated[
    int | None,
    Header(
        alias="Last-Event-ID",
        ge=0,
        le=2**53,
        description="Id of the last event received; without it, the stream starts with the next event.",
    ),
]


async def _slot(request: Request, clm: Connected) -> AsyncIterator[None]:
    state = request.app.state
    if state.streams >= clm.settings.api.max_event_streams:
        raise TooManyRequests("Too many subscribers", wait_seconds=10)
    state.streams += 1
    try:
        yield
    finally:
        state.streams -= 1


class OutboxWatch:
    """Number of the newest event, read at most once in `POLL_SECONDS` for all streams together."""

    def __init__(self) -> None:
        self._newest = 0
        self._read_at = -math.inf

    async def newest(self, outbox: ReceiverStore) -> int:
        now = time.monotonic()
        if now - self._read_at >= POLL_SECONDS:
            # first, so that the other streams do not read it too
            self._read_at = now
            self._newest = await run_in_threadpool(outbox.newest, EVENTS)
        return self._newest


async def events(
    request: Request,
    clm: Connected,
    token: Authenticated,
    _: Annotated[None, Depends(_slot)],
    last_event_id: LastEventId = None,
) -> AsyncIterator[ServerSentEvent]:
    """Promotions, rollbacks, retrains and verdicts as server-sent events. Reconnect with Last-Event-ID."""
    outbox = clm.receivers
    ends = min(await run_in_threadpool(clm.clock) + MAX_DURATION, token.expires_at)
    last = await run_in_threadpool(outbox.newest, EVENTS) if last_event_id is None else last_event_id
    yield ServerSentEvent(comment="connected", retry=2000)
    watch: OutboxWatch = request.app.state.outbox_watch
    while await run_in_threadpool(clm.clock) < ends:
        batch = await run_in_threadpool(outbox.following, EVENTS, last, BATCH_SIZE)
        for event in batch:
            last = event.seq
            yield _server_sent(event)
        if not batch:
            await _later_event(watch, outbox, last)


def schema() -> dict[str, Any]:
    """JSON Schema of an event, in the stream and in webhooks to subscribers."""
    return event_schema()


async def _later_event(watch: OutboxWatch, outbox: ReceiverStore, last: int) -> None:
    """Wait for an event after a number, or for the next look at the clock."""
    for _ in range(LOOKS_BETWEEN_CLOCKS):
        await asyncio.sleep(POLL_SECONDS)
        if await watch.newest(outbox) > last:
            return


def _server_sent(event: OutgoingEvent) -> ServerSentEvent:
    published = event.published
    streamed = StreamedEvent(**dict(published), at=event.at, payload=event.payload)
    return ServerSentEvent(id=str(event.seq), event=event.type, data=streamed)
