"""Revision 0018 in ledgers that hold data: promotions of kind `restoration`."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import records
from revisions import move
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
PROMOTION = text("""
INSERT INTO promotions (model_id, kind, state, from_version, to_version, expected, actor, role, reason,
                        forced, at, finished_at)
VALUES (:model_id, :kind, 'committed', :before, :after, false, 'clm', 'operator', 'kept', false, now(), now())
""")
KINDS = text("SELECT kind FROM promotions ORDER BY id")


def test_revision_0018_keeps_the_promotions_and_accepts_restorations(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    ledger = Ledger(create_engine(url))
    version = ledger.add_version(
        records.a_version(
            ledger.create_job(records.a_job(created_at=NOW)), "v20260304_120000", created_at=NOW
        )
    )
    move(url, "0017", down=True)
    model_id = version.model_id
    label = version.version
    promote = {"model_id": model_id, "kind": "promotion", "before": None, "after": label}
    lose = {"model_id": model_id, "kind": "loss", "before": label, "after": None}
    restore = {"model_id": model_id, "kind": "restoration", "before": None, "after": label}
    insert(url, promote, lose)
    with pytest.raises(IntegrityError, match="ck_promotions_kind"):
        insert(url, restore)
    move(url, "0018")
    insert(url, restore)
    assert kinds(url) == ["promotion", "loss", "restoration"]
    move(url, "0017", down=True)
    assert kinds(url) == ["promotion", "loss", "rollback"]


def insert(url: str, *rows: dict[str, str | None]) -> None:
    with create_engine(url).begin() as connection:
        connection.execute(PROMOTION, rows)


def kinds(url: str) -> list[str]:
    with create_engine(url).begin() as connection:
        return list(connection.scalars(KINDS))
