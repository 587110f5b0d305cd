"""Revision 0028 in ledgers that hold data: halts, and versions without a hard stop."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import records
from revisions import move
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from clm_core.domain.actors import Actor
from clm_core.domain.vocabulary import Role
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
ADA = Actor(name="ada", role=Role.ADMIN)
CHANGE = text("""
INSERT INTO promotions (model_id, kind, state, from_version, to_version, expected, actor, role, reason,
                        forced, at, finished_at)
VALUES (:model_id, :kind, 'committed', :before, :after, false, 'clm', 'operator', 'kept', false, now(), now())
""")
KINDS = text("SELECT kind FROM promotions ORDER BY id")


def test_revision_0028_keeps_the_changes_and_accepts_halts_and_exemptions(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    job = ledger.create_job(records.a_job(created_at=NOW))
    version = ledger.add_version(records.a_version(job, "v20260304_120000", created_at=NOW))
    move(url, "0027", down=True)
    named = {"model_id": version.model_id}
    promote = named | {"kind": "promotion", "before": None, "after": version.version}
    halt = named | {"kind": "halt", "before": version.version, "after": None}
    insert(url, promote)
    with pytest.raises(IntegrityError, match="ck_promotions"):
        insert(url, halt)
    move(url, "0028")
    insert(url, halt)
    with pytest.raises(IntegrityError, match="ck_promotions_target"):
        insert(url, halt | {"after": version.version})
    until = NOW + timedelta(days=3)
    ledger.exemptions.record(version, until, ADA, "a known spike", NOW)
    assert ledger.exemptions.until(version) == until
    ledger.exemptions.record(version, NOW, ADA, "over", NOW)
    assert ledger.exemptions.until(version) == NOW
    with pytest.raises(ProgrammingError, match="permission denied"), engine.begin() as connection:
        connection.execute(text("DELETE FROM hard_stop_exemptions"))
    assert [entry.action for entry in ledger.audit_after(0, 100)][-2:] == ["hard_stop_switched_off"] * 2
    engine.dispose()
    move(url, "0027", down=True)
    assert kinds(url) == ["promotion", "loss"]


def insert(url: str, row: dict[str, str | None]) -> None:
    with create_engine(url).begin() as connection:
        connection.execute(CHANGE, row)


def kinds(url: str) -> list[str]:
    with create_engine(url).begin() as connection:
        return list(connection.scalars(KINDS))
