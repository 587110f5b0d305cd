"""Progress reports of long work."""

from collections.abc import Callable

Announce = Callable[[str, float], None]
"""Receiver of progress: name of the current step and completed fraction, 0..1. Called from any thread."""
