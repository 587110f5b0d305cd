"""An alert is there if and only if what it is about is, and a condition that lasts is told of once."""

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


def test_a_condition_is_told_of_once_until_it_has_ended(store: AlertStore) -> None:
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


def test_every_happening_is_told_of_and_none_lasts(store: AlertStore) -> None:
    for _ in range(2):
        assert store.record(alert(AlertKind.ALIAS_MOVED, "a_model"))
    assert store.lasting() == []
    assert len(store.newest()) == 2


def test_an_alert_about_what_never_was_is_not_recorded(engine: Engine, store: AlertStore) -> None:
    with pytest.raises(IntegrityError):
        record_and_fail(engine)
    assert store.newest() == []


def record_and_fail(engine: Engine) -> None:
    with engine.begin() as connection:
        record(connection, alert())
        connection.execute(text("INSERT INTO receivers (position, failures) VALUES (0, 0)"))


def test_what_no_database_can_store_is_told_all_the_same(store: AlertStore) -> None:
    store.record(alert(message="a \0"))
    assert [each.message for each in store.newest()] == [r"a \0"]


def test_the_numbers_of_alerts_appear_in_their_order(engine: Engine, store: AlertStore) -> None:
    """Who reads up to a number must never find a smaller one later."""
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
