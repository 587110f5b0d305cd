"""Revisions 0021 and 0042 in ledgers that hold data: types of events."""

import uuid
from collections.abc import Callable

import pytest
from revisions import move
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

EVENT = text("INSERT INTO outbox (id, type, payload, at) VALUES (:id, :type, '{}', now())")
FORMER = "clm.model_trained"


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [("0020", "0021", "clm.audit_anchored"), ("0041", "0042", "market.regime_changed")],
)
def test_a_revision_keeps_the_events_and_accepts_the_new_type(
    before: str, after: str, new: str, empty_database: Callable[[], str]
) -> None:
    url = empty_database()
    move(url, before)
    record(url, FORMER)
    with pytest.raises(IntegrityError, match="ck_outbox_type"):
        record(url, new)
    move(url, after)
    record(url, new)
    assert types(url) == [FORMER, new]
    move(url, before, down=True)
    assert types(url) == [FORMER]


def record(url: str, kind: str) -> None:
    with create_engine(url).begin() as connection:
        connection.execute(EVENT, {"id": uuid.uuid4(), "type": kind})


def types(url: str) -> list[str]:
    with create_engine(url).begin() as connection:
        return list(connection.scalars(text("SELECT type FROM outbox ORDER BY seq")))
