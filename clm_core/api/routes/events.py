"""What happens, as it happens."""

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

LOOKS_EVERY_SECONDS = 1.0
LASTS = timedelta(minutes=5)
"""A stream ends then and the subscriber comes back, so that a token that was revoked opens it no longer."""
AT_A_TIME = 100

LastEventId = Annotated[
    int | None,
    Header(
        alias="Last-Event-ID",
        ge=0,
        le=2**53,
        description="The last event you have; without it, only what happens from now on.",
    ),
]


async def _place(request: Request, clm: Connected) -> AsyncIterator[None]:
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
    _: Annotated[None, Depends(_place)],
    last_event_id: LastEventId = None,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: what was promoted, rolled back, trained, judged. Reconnect with Last-Event-ID."""
    told = clm.receivers
    ends = min(clm.clock() + LASTS, token.expires_at)
    seen = await run_in_threadpool(told.newest, EVENTS) if last_event_id is None else last_event_id
    yield ServerSentEvent(comment="connected", retry=2000)
    while clm.clock() < ends:
        found = await run_in_threadpool(told.following, EVENTS, seen, AT_A_TIME)
        for event in found:
            seen = event.seq
            yield _told(event)
        if not found:
            await asyncio.sleep(LOOKS_EVERY_SECONDS)


def _told(event: OutgoingEvent) -> ServerSentEvent:
    return ServerSentEvent(id=str(event.seq), event=event.type, data=event)
