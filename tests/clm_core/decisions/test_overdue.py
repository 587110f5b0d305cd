from datetime import UTC, datetime, timedelta

import pytest

from clm_core.decisions.overdue import judge_passes, overdue, tolerated
from clm_core.domain.passes import PassCondition, ScheduledPass

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def scheduled(
    succeeded_ago: timedelta | None,
    *,
    name: str = "maintenance",
    every: timedelta = MINUTE,
    expected_ago: timedelta = 30 * DAY,
    paused: bool = False,
) -> ScheduledPass:
    return ScheduledPass(
        name=name,
        every=every,
        paused=paused,
        expected_since=NOW - expected_ago,
        succeeded_at=None if succeeded_ago is None else NOW - succeeded_ago,
    )


@pytest.mark.parametrize(
    ("each", "condition"),
    [
        (scheduled(MINUTE), PassCondition.OK),
        (scheduled(6 * MINUTE), PassCondition.OK),
        (scheduled(6 * MINUTE + timedelta(seconds=1)), PassCondition.OVERDUE),
        (scheduled(3 * HOUR, every=HOUR), PassCondition.OK),
        (scheduled(3 * HOUR + MINUTE, every=HOUR), PassCondition.OVERDUE),
        (scheduled(3 * DAY + MINUTE, every=DAY), PassCondition.OVERDUE),
        (scheduled(None), PassCondition.OVERDUE),
        (scheduled(None, expected_ago=5 * MINUTE), PassCondition.OK),
        (scheduled(10 * DAY, expected_ago=5 * MINUTE), PassCondition.OK),
        (scheduled(MINUTE, expected_ago=-HOUR), PassCondition.OK),
        (scheduled(10 * DAY, paused=True), PassCondition.PAUSED),
        (scheduled(MINUTE, paused=True), PassCondition.PAUSED),
    ],
    ids=[
        "just succeeded",
        "at the end of what is tolerated",
        "one second later",
        "hourly, three hours",
        "hourly, longer",
        "daily, longer",
        "never, for a month",
        "never, new",
        "the servers have just started",
        "a start later than now",
        "paused for long",
        "paused just now",
    ],
)
def test_a_pass_is_overdue_after_several_intervals_without_a_success(
    each: ScheduledPass, condition: PassCondition
) -> None:
    [health] = judge_passes([each], NOW)
    assert health.condition is condition
    assert (health.reason is None) == (condition is not PassCondition.OVERDUE)


def test_the_reason_names_pass_interval_last_success_and_the_next_step() -> None:
    [watch, maintenance] = overdue(
        judge_passes([scheduled(None), scheduled(DAY, name="fetch", every=HOUR)], NOW)
    )
    assert watch.startswith(
        "fetch, due every hour, succeeded last at 2026-03-03 12:00 UTC. `clm data update`"
    )
    assert maintenance.startswith(
        "maintenance, due every minute, has never succeeded. `clm maintenance` runs"
    )


@pytest.mark.parametrize(
    ("name", "command"),
    [("watch", "`clm watch`"), ("shadow-1h", "`clm shadow`"), ("fetch", "`clm data update`")],
)
def test_the_reason_names_the_command_of_the_pass(name: str, command: str) -> None:
    [reason] = overdue(judge_passes([scheduled(None, name=name)], NOW))
    assert command in reason


@pytest.mark.parametrize("every", [timedelta(seconds=10), MINUTE, HOUR, DAY, 7 * DAY])
def test_one_missed_run_is_never_an_illness(every: timedelta) -> None:
    assert tolerated(every) > 2 * every


def test_passes_are_judged_one_by_one_and_listed_by_name() -> None:
    passes = [scheduled(None, name="watch", every=HOUR), scheduled(MINUTE)]
    assert [(each.name, each.condition) for each in judge_passes(passes, NOW)] == [
        ("maintenance", PassCondition.OK),
        ("watch", PassCondition.OVERDUE),
    ]
