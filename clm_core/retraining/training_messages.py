"""Messages between a training in another process or pod and its caller, through files in the folder.

messages.jsonl    from the training: progress, the error, the end; a line of JSON each
caller            from the caller: a number, which grows during the life of the caller

A file is opened anew for each message and each reading: on a network file system, readers on other machines
see the contents of closed files.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_core.domain import errors
from clm_core.domain.errors import CLMError
from clm_core.domain.progress import Announce

MESSAGES = "messages.jsonl"
CALLER = "caller"
"""File whose contents change as long as the caller lives."""
PAUSE_SECONDS = 0.2
"""Minimum time between two progress messages of the same step."""
BEATS = 6
"""Number of changes of the caller's file within the time after which a silent caller counts as dead."""
Send = Callable[..., None]


@dataclass(frozen=True)
class MessageWriter:
    """Sender of messages; called from any thread."""

    folder: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, **message: Any) -> None:
        line = json.dumps(message) + "\n"
        with self._lock, (self.folder / MESSAGES).open("a", encoding="utf-8") as file:
            file.write(line)

    def announcer(self) -> Announce:
        """Progress as messages, at most one in `PAUSE_SECONDS` within a step."""
        last_step = ""
        last_sent = 0.0

        def announce(step: str, share: float) -> None:
            nonlocal last_step, last_sent
            now = time.monotonic()
            if step != last_step or now - last_sent > PAUSE_SECONDS:
                last_step = step
                last_sent = now
                self.send(step=step, share=share)

        return announce


@dataclass
class MessageReader:
    """Receiver of messages, each once."""

    folder: Path
    _position: int = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Messages since the last reading; an unfinished line is left for the next reading."""
        try:
            with (self.folder / MESSAGES).open("rb") as file:
                file.seek(self._position)
                content = file.read()
        except FileNotFoundError:
            return
        complete = content[: content.rfind(b"\n") + 1]
        self._position += len(complete)
        yield from map(json.loads, complete.splitlines())


def is_done(message: dict[str, Any], announce: Announce) -> bool:
    """Act on a message; true for the message that ends the training.

    Raises:
        CLMError: the error in the message.
    """
    match message:
        case {"step": step, "share": share}:
            announce(step, share)
        case {"error": name, "message": text}:
            kind = getattr(errors, name)
            error: CLMError = kind.__new__(kind)
            error.args = (text,)
            raise error
    return "done" in message


@contextlib.contextmanager
def alive(folder: Path, silence_seconds: float) -> Iterator[None]:
    """Give the training signs of life of the caller during the block.

    Args:
        silence_seconds: longest time without a sign before the training ends.
    """
    ended = threading.Event()

    def beat() -> None:
        number = 0
        while True:
            number += 1
            # the folder may be gone for a moment, or for good: the block finds out
            with contextlib.suppress(OSError):
                (folder / CALLER).write_text(str(number))
            if ended.wait(silence_seconds / BEATS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def end_without_caller(messages: MessageWriter, silence_seconds: float) -> None:
    """End this process once the caller's file has not changed, or could not be read, for a time."""
    last = None
    since = time.monotonic()
    while time.monotonic() - since < silence_seconds:
        time.sleep(silence_seconds / BEATS)
        seen = None
        with contextlib.suppress(OSError):
            seen = (messages.folder / CALLER).read_bytes()
        if seen not in (None, b"", last):
            last = seen
            since = time.monotonic()
    text = f"the training ended: its run gave no sign of life for {silence_seconds:g} s"
    with contextlib.suppress(OSError):
        messages.send(error="TrainingFailed", message=text)
    os.write(2, f"{text}\n".encode())
    os._exit(1)
