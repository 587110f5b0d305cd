"""Steps of long work on the standard error of a program or a notebook."""

import sys
import time

QUIET_SECONDS = 1.0
"""Shortest time between two lines about one step."""


class Printed:
    """Prints each step, and the progress of a long step at most once a second.

    In a terminal or a notebook a line replaces the line before. Elsewhere each step is a line, printed once.
    """

    def __init__(self) -> None:
        self._step = ""
        self._printed_at = 0.0
        self._width = 0
        self._replaces = sys.stderr.isatty() or "ipykernel" in sys.modules

    def announce(self, step: str, share: float) -> None:
        """See `domain.progress.Announce`."""
        now = time.monotonic()
        if step == self._step and (not self._replaces or now - self._printed_at < QUIET_SECONDS):
            return
        self._step = step
        self._printed_at = now
        line = f"{step} {share:.0%}" if 0.0 < share < 1.0 else step
        end = "" if self._replaces and share < 1.0 else "\n"
        start = "\r" if self._replaces else ""
        sys.stderr.write(f"{start}{line:<{self._width}}{end}")
        sys.stderr.flush()
        self._width = 0 if end else len(line)
