"""Definitions of studies and searches, which never change after the start."""

from collections.abc import Mapping
from typing import Any

from clm_core.domain.errors import StudyDiffers


def require_unchanged(what: str, name: str, parts: str, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """
    Args:
        what: `study` or `search`.
        parts: `trials` or `candidates`, which changes would make incomparable.
        changes: former and present value by field.

    Raises:
        StudyDiffers: there are changes.
    """
    if not changes:
        return
    differences = "; ".join(f"{field} was {then}, now {now}" for field, (then, now) in changes.items())
    raise StudyDiffers(
        f"The {what} {name} cannot continue, the {parts} would not be comparable: {differences}. Restore the "
        f"former values, or start a {what} with another name."
    )
