"""Revision 0020 in ledgers that hold data: keys of requests, and keys whose work is not done."""

from collections.abc import Callable

import pytest
from revisions import move
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from clm_core.ledger.migrations import upgrade

REPLY = text("""
INSERT INTO api_replies (caller, key, request_hash, status, media_type, body, at)
VALUES ('ada', :key, 'abc', :status, :kind, :body, now())
""")
PROMOTION = text("""
INSERT INTO promotions (model_id, kind, state, expected, actor, role, reason, forced, at)
VALUES ('xgboost_btcusd_1h', 'alias_moved', 'alias_moved', false, 'clm', 'operator', 'kept', false, now())
""")
DONE = {"key": "done", "status": 200, "kind": "application/json", "body": "{}"}
BEGUN = {"key": "begun", "status": None, "kind": None, "body": None}
HALF = {"key": "half", "status": 200, "kind": None, "body": None}


def test_revision_0020_keeps_replies_and_promotions_and_accepts_begun_requests(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    move(url, "0019", down=True)
    with create_engine(url).begin() as connection:
        connection.execute(PROMOTION)
        connection.execute(REPLY, [DONE])
    with pytest.raises(IntegrityError), create_engine(url).begin() as connection:
        connection.execute(REPLY, [BEGUN])
    move(url, "0020")
    with create_engine(url).begin() as connection:
        connection.execute(REPLY, [BEGUN])
        assert connection.scalars(text("SELECT request_key FROM promotions")).all() == [None]
    with (
        pytest.raises(IntegrityError, match="ck_api_replies_reply"),
        create_engine(url).begin() as connection,
    ):
        connection.execute(REPLY, [HALF])
    assert keys(url) == ["begun", "done"]
    move(url, "0019", down=True)
    assert keys(url) == ["done"]


def keys(url: str) -> list[str]:
    with create_engine(url).begin() as connection:
        return list(connection.scalars(text("SELECT key FROM api_replies ORDER BY key")))
