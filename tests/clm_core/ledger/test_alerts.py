"""Alerts: recorded if and only if the change is committed; a lasting condition is recorded once."""

import threading
from datetime import UTC, datetime

import pytest
from patience import PATIENT_SECONDS
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from clm_core.domain.alerts import Alert, AlertKind
from clm_core.ledger.alerts import AlertStore, record

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture
def store(engine: Engine) -> AlertStore:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE alerts"))
    return AlertStore(engine)


def alert(kind: AlertKind = AlertKind.AUDIT_BROKEN, subject: str = "audit", message: str = "look") -> Alert:
    return Alert(kind=kind, subject=subject, message=message, at=NOW)


def test_a_condition_is_recorded_once_until_its_end(store: AlertStore) -> None:
    assert store.record(alert())
    assert not store.record(alert(message="still"))
    assert store.record(alert(subject="another"))
    assert [(each.subject, each.message) for each in store.lasting()] == [
        ("audit", "look"),
        ("another", "look"),
    ]
    assert store.end(AlertKind.AUDIT_BROKEN, "audit", NOW)
    assert not store.end(AlertKind.AUDIT_BROKEN, "audit", NOW)
    assert store.record(alert(message="again"))
    assert [each.message for each in store.newest()] == ["again", "look", "look"]


def test_every_occurrence_is_recorded_and_ends_at_once(store: AlertStore) -> None:
    for _ in range(2):
        assert store.record(alert(AlertKind.ALIAS_MOVED, "a_model"))
    assert store.lasting() == []
    assert len(store.newest()) == 2


def test_an_alert_is_not_recorded_if_its_transaction_is_rolled_back(
    engine: Engine, store: AlertStore
) -> None:
    with pytest.raises(IntegrityError):
        record_and_fail(engine)
    assert store.newest() == []


def record_and_fail(engine: Engine) -> None:
    with engine.begin() as connection:
        record(connection, alert())
        connection.execute(text("INSERT INTO receivers (position, failures) VALUES (0, 0)"))


def test_an_alert_with_characters_unknown_to_postgresql_is_recorded(store: AlertStore) -> None:
    store.record(alert(message="a \0"))
    assert [each.message for each in store.newest()] == [r"a \0"]


def test_alerts_become_visible_in_the_order_of_their_numbers(engine: Engine, store: AlertStore) -> None:
    """A reader of all numbers up to a limit must never find a smaller number later."""
    with engine.connect() as first, first.begin() as begun:
        record(first, alert(subject="first"))
        second = threading.Thread(target=store.record, args=[alert(subject="second")])
        second.start()
        second.join(0.5)
        assert second.is_alive()
        assert store.newest() == []
        begun.commit()
    second.join(PATIENT_SECONDS)
    assert [each.subject for each in store.newest()] == ["second", "first"]
