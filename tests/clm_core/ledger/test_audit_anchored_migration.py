"""Revision 0021 in ledgers that hold data: events about anchors of the audit."""

import uuid
from collections.abc import Callable

import pytest
from revisions import move
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

EVENT = text("INSERT INTO outbox (id, type, payload, at) VALUES (:id, :type, '{}', now())")
FORMER = "clm.model_trained"
NEW = "clm.audit_anchored"


def test_revision_0021_keeps_the_events_and_accepts_anchors(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    move(url, "0020")
    record(url, FORMER)
    with pytest.raises(IntegrityError, match="ck_outbox_type"):
        record(url, NEW)
    move(url, "0021")
    record(url, NEW)
    assert types(url) == [FORMER, NEW]
    move(url, "0020", down=True)
    assert types(url) == [FORMER]


def record(url: str, kind: str) -> None:
    with create_engine(url).begin() as connection:
        connection.execute(EVENT, {"id": uuid.uuid4(), "type": kind})


def types(url: str) -> list[str]:
    with create_engine(url).begin() as connection:
        return list(connection.scalars(text("SELECT type FROM outbox ORDER BY seq")))
