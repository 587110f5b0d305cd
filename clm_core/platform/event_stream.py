"""Client of server-sent events (WHATWG HTML, section 9.2): one connection, read event by event."""

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from clm_core.domain.errors import StreamBroken
from clm_core.platform.trusted_certificates import trusted_certificates

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0
"""Longest time without a byte, comments included, before the connection counts as lost."""


@dataclass(frozen=True)
class ReceivedEvent:
    """An event of a stream."""

    id: str | None
    """Last id of the stream, to continue after this event."""
    kind: str
    data: str


def server_sent_events(
    url: str,
    headers: Mapping[str, str],
    last_id: str | None,
    connected: Callable[[Callable[[], None]], None],
) -> Iterator[ReceivedEvent]:
    """Events of a stream, up to the end of the connection.

    Args:
        last_id: id of the last event received, to continue there.
        connected: called once the stream is open, with a function that hangs up, from any thread.

    Raises:
        StreamBroken: the server refuses, does not answer, or the connection was lost.
    """
    import httpx

    resuming = {} if last_id is None else {"Last-Event-ID": last_id}
    timeout = httpx.Timeout(CONNECT_SECONDS, read=SILENCE_SECONDS)
    request_headers = {**headers, **resuming, "Accept": "text/event-stream"}
    try:
        with httpx.stream(
            "GET", url, headers=request_headers, timeout=timeout, verify=trusted_certificates()
        ) as answer:
            if not answer.is_success:
                answer.read()
                raise StreamBroken(f"{url} answered {answer.status_code}: {answer.text[:300]}")
            connected(partial(_hang_up, answer))
            yield from parsed(answer.iter_lines(), last_id)
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise StreamBroken(f"{url}: {type(error).__name__}: {error}") from error


def _hang_up(answer: "httpx.Response") -> None:
    """End a read in another thread, unlike closing the answer."""
    connection = answer.extensions["network_stream"].get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def parsed(lines: Iterator[str], last_id: str | None = None) -> Iterator[ReceivedEvent]:
    """Events of the lines of a stream; an event is complete at an empty line."""
    kind = ""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield ReceivedEvent(last_id, kind or "message", "\n".join(data))
            kind = ""
            data = []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                kind = value
            case "data":
                data.append(value)
            case "id" if "\0" not in value:
                last_id = value
