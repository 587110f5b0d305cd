"""Progress reports of long work."""

from collections.abc import Callable

Announce = Callable[[str, float], None]
"""Told the name of the step under way and its finished share, 0..1; may be called from any thread."""
