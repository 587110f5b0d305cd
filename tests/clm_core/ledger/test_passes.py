"""Scheduled passes in the ledger: schedules, last successes, and the moments from which runs are due."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import Engine, create_engine, text

from clm_core.domain.passes import PassSchedule, ScheduledPass
from clm_core.ledger.migrations import alembic_config, upgrade
from clm_core.ledger.passes import PassStore

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def store(engine: Engine) -> PassStore:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE scheduled_passes"))
    return PassStore(engine)


@pytest.fixture
def age(engine: Engine) -> Callable[[], None]:
    """Function that moves everything recorded an hour back."""

    def an_hour() -> None:
        with engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE scheduled_passes SET expected_since = expected_since - interval '1 hour', "
                    "succeeded_at = succeeded_at - interval '1 hour'"
                )
            )

    return an_hour


def only(store: PassStore) -> tuple[ScheduledPass, datetime]:
    [each], now = store.read()
    return each, now


def due(every: timedelta = MINUTE, *, paused: bool = False) -> dict[str, PassSchedule]:
    return {"maintenance": PassSchedule(every=every, paused=paused)}


def test_a_success_is_kept_with_the_schedule_whichever_comes_first(store: PassStore) -> None:
    store.succeeded("maintenance")
    assert store.read()[0] == []
    store.expect(due())
    before, now = only(store)
    assert (before.every, before.paused) == (MINUTE, False)
    assert before.succeeded_at is not None
    assert before.succeeded_at <= before.expected_since <= now
    store.succeeded("maintenance")
    after, _ = only(store)
    assert after.succeeded_at is not None
    assert after.succeeded_at > before.succeeded_at
    assert after.expected_since == before.expected_since


@pytest.mark.parametrize(
    ("before", "now_due", "is_restarted"),
    [
        (due(), due(), False),
        (due(), due(HOUR), True),
        (due(paused=True), due(), True),
        (due(), due(paused=True), False),
        (due(paused=True), due(paused=True), False),
    ],
    ids=["unchanged", "another interval", "resumed", "paused", "still paused"],
)
def test_runs_are_due_anew_after_a_change_of_the_schedule(
    store: PassStore,
    age: Callable[[], None],
    before: dict[str, PassSchedule],
    now_due: dict[str, PassSchedule],
    is_restarted: bool,
) -> None:
    store.expect(before)
    age()
    store.expect(now_due)
    each, now = only(store)
    assert (now - each.expected_since < HOUR) == is_restarted
    assert each.paused == now_due["maintenance"].paused


def test_a_restart_of_the_servers_counts_from_now_on_and_keeps_the_last_success(
    store: PassStore, age: Callable[[], None]
) -> None:
    store.expect(due())
    store.succeeded("maintenance")
    age()
    store.restart()
    each, now = only(store)
    assert now - each.expected_since < HOUR
    assert each.succeeded_at is not None
    assert now - each.succeeded_at >= HOUR


def test_a_removed_pass_is_forgotten_and_a_vanished_one_is_still_expected(store: PassStore) -> None:
    store.expect(due() | {"fetch": PassSchedule(every=HOUR, paused=False)})
    store.expect({})
    assert [each.name for each in store.read()[0]] == ["fetch", "maintenance"]
    store.expect({}, removed={"fetch"})
    assert [each.name for each in store.read()[0]] == ["maintenance"]


def test_the_revision_adds_the_table_to_a_ledger_in_use(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    upgrade(url)
    with create_engine(url).begin() as connection:
        command.downgrade(alembic_config(connection), "0018")
        alert = (
            "INSERT INTO alerts (kind, subject, message, at) VALUES ('job_failed', 'audit', 'look', now())"
        )
        connection.execute(text(alert))
    upgrade(url)
    with create_engine(url).begin() as connection:
        assert connection.scalar(text("SELECT subject FROM alerts")) == "audit"
        assert connection.scalar(text("SELECT count(*) FROM scheduled_passes")) == 0
