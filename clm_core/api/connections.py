"""Connections with a deadline for every phase in which the server waits for its client.

    request head   408 and the end, `head_seconds` after the connection or after the first byte of the head
    body           408, see `BodyLimits`
    keep-alive     closed after `idle_seconds` without a byte
    response       reset when the client has not taken a written piece within `write_seconds`

A response under way has none: a stream of events may stay silent. Beyond `max_connections` a new connection
replaces the one that has waited for its client for the longest time.
"""

import asyncio
import itertools
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from clm_core.api.errors import ADVICE, MEDIA_TYPE
from clm_core.domain.api_settings import ApiSettings

log = logging.getLogger("clm.api")
_WARNED_EVERY_SECONDS = 60.0
_GRACE_SECONDS = 0.01
_RESET = struct.pack("ii", 1, 0)


class Connections:
    """Limits of the connections of a server."""

    def __init__(self, settings: ApiSettings) -> None:
        self.head_seconds = settings.head_seconds
        self.write_seconds = settings.write_seconds
        self._max_count = settings.max_connections
        self._silent_until = 0.0
        # of a time several connections could be the oldest
        self._turns = itertools.count()

    def turn(self) -> int:
        """Number greater than all before."""
        return next(self._turns)

    def make_room(self, connections: Iterable[object], now: float) -> None:
        """Ends the connection that has waited longest for its client if the limit is reached."""
        open_ones = [each for each in connections if isinstance(each, BoundedConnection) and each.is_open]
        if len(open_ones) < self._max_count:
            return
        waiting = [(each.waiting_since, each) for each in open_ones if each.waiting_since is not None]
        if waiting:
            min(waiting, key=lambda pair: pair[0])[1].end()
        if now >= self._silent_until:
            self._silent_until = now + _WARNED_EVERY_SECONDS
            log.warning(
                "%d connections are open, the limit of [api] max_connections: a new connection ends the one "
                "that has waited longest for its client.",
                len(open_ones),
            )


class Deadline:
    """Call of a function after a time, unless stopped before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._act = act
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        return self._timer is not None

    def start(self) -> None:
        """Starts the time; without effect while it runs, so that no further byte prolongs it."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._expire)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        # after a stall of the server, events that arrived meanwhile come first and may stop the deadline
        self._timer = self._loop.call_later(_GRACE_SECONDS, self._act)


class BoundedConnection(H11Protocol):
    """HTTP/1.1 connection of uvicorn with the deadlines of `Connections`."""

    def __init__(self, limits: Connections, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._head = Deadline(self.loop, limits.head_seconds, self._refuse_late_head)
        self._write = Deadline(self.loop, limits.write_seconds, self.end)
        self._since = 0

    @property
    def is_open(self) -> bool:
        return not self.transport.is_closing() or self._write.is_running

    @property
    def waiting_since(self) -> int | None:
        """Turn at which the server began to wait for the client; None while the client waits."""
        is_waiting = self._write.is_running or not self._is_answering or self.cycle.more_body
        return self._since if is_waiting else None

    def end(self) -> None:
        """Resets the connection, with whatever the client has not taken."""
        self._write.stop()
        handle: socket.socket | None = self.transport.get_extra_info("socket")
        if handle is not None and handle.fileno() >= 0:
            # else the system would keep the data that the client does not take
            with socket.socket(fileno=os.dup(handle.fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._limits.make_room(self.connections, self.loop.time())
        super().connection_made(transport)
        # `pause_writing` at the first byte that the system does not take, `resume_writing` after the last
        transport.set_write_buffer_limits(high=0)
        self._since = self._limits.turn()
        self._head.start()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering:
            self._head.stop()
        elif not self.transport.is_closing():
            self._head.start()

    def on_response_complete(self) -> None:
        self._since = self._limits.turn()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._since = self._limits.turn()
        self._write.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.stop()
        self._write.stop()
        super().connection_lost(exc)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse_late_head(self) -> None:
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self.transport.write(_too_late(self.conn))
        self.transport.close()


def bounded(settings: ApiSettings) -> Any:
    """Protocol class for uvicorn's option `http`."""
    return partial(BoundedConnection, Connections(settings))


def _too_late(connection: h11.Connection) -> bytes:
    document = {"type": "about:blank", "title": "Request Timeout", "status": 408, "detail": ADVICE[408]}
    body = json.dumps(document).encode()
    headers = [("content-type", MEDIA_TYPE), ("content-length", str(len(body))), ("connection", "close")]
    sent = [
        connection.send(h11.Response(status_code=408, headers=headers, reason=b"Request Timeout")),
        connection.send(h11.Data(data=body)),
        connection.send(h11.EndOfMessage()),
    ]
    return b"".join(part for part in sent if part)
