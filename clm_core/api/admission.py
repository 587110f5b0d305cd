"""Middleware that limits the requests answered at a time, in lanes: health and webhooks have their own."""

import asyncio
import contextlib
from collections.abc import MutableMapping
from weakref import WeakKeyDictionary

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clm_core.api.errors import problem

WAIT_SECONDS = 10.0
"""Maximum time for which a request waits for a place."""
UNQUEUED = frozenset({"/health", "/livez", "/readyz"})
"""Paths with places of their own."""


class Lane:
    """Places for one group of requests."""

    def __init__(self, running: int, waiting: int) -> None:
        self._places = asyncio.Semaphore(running)
        self._max_waiting = waiting
        self._waiting = 0

    async def enter(self) -> bool:
        """Takes a place; False if too many requests wait, or none came free in time."""
        if self._waiting >= self._max_waiting:
            return False
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await self._places.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1

    def leave(self) -> None:
        self._places.release()


class Lanes:
    """The lanes of a server: 32 places, fewer than the 40 threads that answer requests.

    A waiting request has a connection; all lanes together stay below `[api] max_connections`.
    """

    def __init__(self) -> None:
        self._health = Lane(running=4, waiting=50)
        self._webhooks = Lane(running=8, waiting=50)
        self._others = Lane(running=20, waiting=200)

    def of(self, path: str) -> Lane:
        if path in UNQUEUED:
            return self._health
        return self._webhooks if path.startswith("/webhooks/") else self._others


class Admission:
    """Gives a request with a complete body a place until its response begins.

    A response being sent, such as a stream of events, needs no place.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        # a semaphore belongs to one event loop
        self._lanes: MutableMapping[asyncio.AbstractEventLoop, Lanes] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        lane = self._lanes.setdefault(asyncio.get_running_loop(), Lanes()).of(scope["path"])
        if not await lane.enter():
            await problem(503, "Too many requests are under way: try again later.")(scope, receive, send)
            return
        with contextlib.ExitStack() as place:
            place.callback(lane.leave)

            async def send_and_leave(message: Message) -> None:
                if message["type"] == "http.response.start":
                    place.close()
                await send(message)

            await self._app(scope, receive, send_and_leave)
