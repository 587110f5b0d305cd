"""Moments in queries and reports, in ISO 8601."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, WithJsonSchema

EARLIEST = datetime(1678, 1, 1, tzinfo=UTC)
LATEST = datetime(2262, 1, 1, tzinfo=UTC)
"""Bounds of the times of bars, which are counted in nanoseconds in 64 bits."""

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


def _require_within(moment: datetime) -> datetime:
    if not EARLIEST <= moment <= LATEST:
        raise ValueError(f"no bar can be of {moment.year}: write a moment from 1678 to 2261")
    return moment


def _bounded(moment: datetime) -> datetime:
    return min(max(moment, EARLIEST), LATEST)


_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]},
    mode="validation",
)

Moment = Annotated[AwareDatetime, BeforeValidator(_read), AfterValidator(_require_within), _SCHEMA]
"""A moment with a time zone, or a date: midnight in UTC."""

Bound = Annotated[AwareDatetime, BeforeValidator(_read), AfterValidator(_bounded), _SCHEMA]
"""Begin or end of a period, written as a moment: 0001-01-01 and 9999-12-31 stand for all times."""
