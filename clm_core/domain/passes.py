"""Scheduled passes: maintenance, watch, fetch and shadow, and whether each succeeds on schedule."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class PassSchedule(BaseModel):
    """Schedule of a pass, as Prefect has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: timedelta
    paused: bool
    """True while a person has paused the deployment or its schedule."""


class ScheduledPass(PassSchedule):
    """A scheduled pass and its last success."""

    name: str
    """Name of the deployment: `maintenance`, `shadow-1h`."""
    expected_since: datetime
    """Moment from which runs are due: the first sight of the schedule, the end of a pause, or the start of
    `clm up`."""
    succeeded_at: datetime | None
    """End of the last run without problems, if any."""


class PassCondition(StrEnum):
    OK = "ok"
    PAUSED = "paused"
    """Nothing is due; shown, and no illness."""
    OVERDUE = "overdue"
    """No run has succeeded for several intervals."""


class PassHealth(BaseModel):
    """Judgement of a scheduled pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    condition: PassCondition
    every_seconds: float
    succeeded_at: datetime | None
    reason: str | None
    """Sentence with the last success and the remedy, for an overdue pass."""
