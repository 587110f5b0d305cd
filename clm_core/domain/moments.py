"""Moments in queries and reports, in ISO 8601."""

import re
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, WithJsonSchema

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_COUNT = re.compile(r"\s*[-+.\d]+\s*")


def _read(value: object) -> object:
    """Midnight in UTC for a plain date; refuses a bare number, since pydantic would read seconds or
    milliseconds since 1970."""
    if isinstance(value, str) and _DATE.fullmatch(value):
        return f"{value}T00:00:00Z"
    if isinstance(value, int | float) or (isinstance(value, str) and _COUNT.fullmatch(value)):
        raise ValueError("write the moment in ISO 8601: 2026-01-01T00:00:00Z, or 2026-01-01 for midnight UTC")
    return value


Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_read),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]},
        mode="validation",
    ),
]
"""A moment with a time zone, or a date: midnight in UTC."""
