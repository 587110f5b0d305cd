"""Server-sent events: the outbox as a live stream."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.sse import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from clm_core.api.auth import Authenticated
from clm_core.api.context import Connected
from clm_core.domain.errors import TooManyRequests
from clm_core.ledger.receivers import EVENTS, OutgoingEvent

POLL_SECONDS = 1.0
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


async def events(
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
    while await run_in_threadpool(clm.clock) < ends:
        batch = await run_in_threadpool(outbox.following, EVENTS, last, BATCH_SIZE)
        for event in batch:
            last = event.seq
            yield _server_sent(event)
        if not batch:
            await asyncio.sleep(POLL_SECONDS)


def _server_sent(event: OutgoingEvent) -> ServerSentEvent:
    return ServerSentEvent(id=str(event.seq), event=event.type, data=event)
