"""Moments as people and programs write them."""

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from clm_core.domain.moments import EARLIEST, LATEST, Bound, Moment

MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)
BOUND: TypeAdapter[datetime] = TypeAdapter(Bound)


@pytest.mark.parametrize("text", ["2026-03-01", "2026-03-01T00:00:00Z", "2026-03-01T01:00:00+01:00"])
def test_a_date_is_midnight_in_utc(text: str) -> None:
    assert MOMENT.validate_python(text) == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "value", ["2026-03-01T00:00:00", "2026-02-30", "20260301", "1772323200", 1772323200, "2026-03", "noon"]
)
def test_a_moment_without_zone_a_count_and_an_impossible_date_are_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        MOMENT.validate_python(value)


@pytest.mark.parametrize(
    ("text", "bound"),
    [("0147-02-07", EARLIEST), ("0001-01-01T00:00:00+14:00", EARLIEST), ("9999-12-31", LATEST)],
)
def test_a_moment_that_no_bar_can_have_is_refused_and_bounds_a_period_like_all_times(
    text: str, bound: datetime
) -> None:
    with pytest.raises(ValidationError, match="from 1678 to 2261"):
        MOMENT.validate_python(text)
    assert BOUND.validate_python(text) == bound
    # as bars count their times
    assert abs(bound.timestamp() * 1e9) < 2**63
