"""Dead man's switch: a scheduled pass that has not succeeded for several intervals is overdue."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from clm_core.domain.passes import PassCondition, PassHealth, ScheduledPass

MISSED_INTERVALS = 3
"""Intervals without a success after which a pass is overdue: one slow or failed run is no illness."""
MIN_DELAY = timedelta(minutes=5)
"""Delay beyond one interval that is always tolerated: a restart of the servers, a busy machine."""


def judge_passes(passes: Iterable[ScheduledPass], now: datetime) -> list[PassHealth]:
    """Condition of each pass, by name.

    A success and the schedule itself are times of the same clock as `now`.
    """
    return [_judge(each, now) for each in sorted(passes, key=lambda each: each.name)]


def tolerated(every: timedelta) -> timedelta:
    """Longest time without a success: three intervals, and for short intervals five minutes more than one."""
    return max(MISSED_INTERVALS * every, every + MIN_DELAY)


def overdue(passes: Iterable[PassHealth]) -> list[str]:
    """Reasons of the overdue passes, a sentence each."""
    return [each.reason for each in passes if each.reason is not None]


def _judge(scheduled: ScheduledPass, now: datetime) -> PassHealth:
    since = max(scheduled.expected_since, scheduled.succeeded_at or scheduled.expected_since)
    condition = PassCondition.OK
    reason = None
    if scheduled.paused:
        condition = PassCondition.PAUSED
    elif now - since > tolerated(scheduled.every):
        condition = PassCondition.OVERDUE
        reason = _reason(scheduled)
    return PassHealth(
        name=scheduled.name,
        condition=condition,
        every_seconds=scheduled.every.total_seconds(),
        succeeded_at=scheduled.succeeded_at,
        reason=reason,
    )


def _reason(scheduled: ScheduledPass) -> str:
    last = scheduled.succeeded_at
    success = "has never succeeded" if last is None else f"succeeded last at {last:%Y-%m-%d %H:%M} UTC"
    return (
        f"{scheduled.name}, due every {_words(scheduled.every)}, {success}. `{_command(scheduled.name)}` "
        "runs the pass here and names the cause; `clm status` shows the workers, Prefect's pages the runs."
    )


def _command(name: str) -> str:
    """Command that runs the pass at once."""
    return "clm data update" if name == "fetch" else f"clm {name.partition('-')[0]}"


def _words(every: timedelta) -> str:
    seconds = int(every.total_seconds())
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        if seconds >= length and seconds % length == 0:
            count = seconds // length
            return unit if count == 1 else f"{count} {unit}s"
    return f"{every.total_seconds():g} seconds"
