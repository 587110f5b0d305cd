"""Moments as people and programs write them."""

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from clm_core.domain.moments import Moment

MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)


@pytest.mark.parametrize("text", ["2026-03-01", "2026-03-01T00:00:00Z", "2026-03-01T01:00:00+01:00"])
def test_a_date_is_midnight_in_utc(text: str) -> None:
    assert MOMENT.validate_python(text) == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "value", ["2026-03-01T00:00:00", "2026-02-30", "20260301", "1772323200", 1772323200, "2026-03", "noon"]
)
def test_a_moment_without_zone_a_count_and_an_impossible_date_are_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        MOMENT.validate_python(value)
