"""Revision 0031 in ledgers that hold data: allocations, and events about them."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import records
from revisions import move
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from clm_core.domain.actors import Actor
from clm_core.domain.allocations import AllocationEnd, ArmWeight
from clm_core.domain.errors import ConflictError
from clm_core.domain.vocabulary import Role
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
ADA = Actor(name="ada", role=Role.ADMIN)
MODEL = "xgboost_btcusdt_1h"
ARMS = [ArmWeight(version="v20260304_120000", weight=0.7), ArmWeight(version="v20260305_120000", weight=0.3)]
EVENTS = text("SELECT type FROM outbox ORDER BY seq")


def test_revision_0031_keeps_the_events_and_records_allocations_once_and_for_ever(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    ledger.create_job(records.a_job(created_at=NOW))
    move(url, "0030", down=True)
    move(url, "0031")
    run = ledger.allocations.start(MODEL, ARMS, "paper", ADA, "try", NOW)
    assert ledger.allocations.running(MODEL) == run
    with pytest.raises(ConflictError, match="has a running allocation"):
        ledger.allocations.start(MODEL, ARMS, "paper", ADA, "again", NOW)
    [first] = ledger.allocations.weights(run)
    ledger.allocations.weigh(run, first, ARMS, ["as before"], ADA, NOW)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        ledger.allocations.weigh(run, first, ARMS, ["a pass at the same time"], ADA, NOW)
    done = ledger.allocations.end(run, AllocationEnd.STOPPED, "enough", ADA, NOW)
    assert (done.end, done.ended_by, done.end_reason) == (AllocationEnd.STOPPED, "ada", "enough")
    assert ledger.allocations.end(run, AllocationEnd.HALTED, "later", ADA, NOW) == done
    assert ledger.allocations.running(MODEL) is None
    assert ledger.allocations.history(MODEL) == [done]
    actions = [entry.action for entry in ledger.audit_after(0, 100)]
    assert actions[-3:] == ["allocation_started", "allocation_changed", "allocation_ended"]
    for table in ("allocations", "allocation_weights", "allocation_ends", "allocation_served"):
        with pytest.raises(ProgrammingError, match="permission denied"), engine.begin() as connection:
            connection.execute(text(f"DELETE FROM {table}"))
    with pytest.raises(IntegrityError, match="ck_allocations_arms"):
        ledger.allocations.start("another", ARMS[:1], "paper", ADA, "alone", NOW)
    engine.dispose()
    move(url, "0030", down=True)
    with create_engine(url).begin() as connection:
        assert list(connection.scalars(EVENTS)) == ["clm.training_job_created"]
