"""Revision 0030 in ledgers that hold data: recorded positions stay, and get checks."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import records
from alembic import command
from sqlalchemy import create_engine

from clm_core.domain.shadows import RecordCheck
from clm_core.ledger.migrations import alembic_config, upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
BAR = np.array([1_772_625_600_000_000_000])
CHECK = RecordCheck(NOW, corrections=1, explained=2, problem=None)


def test_revision_0030_keeps_the_recorded_positions_and_the_former_revision_loses_the_checks_alone(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = create_engine(url)
    ledger = Ledger(engine)
    job = ledger.create_job(records.a_job(created_at=NOW))
    version = ledger.add_version(records.a_version(job, "v20260304_120000", created_at=NOW))
    name = (version.model_id, version.version)
    ledger.shadows.record(*name, BAR, np.array([0.5]), NOW)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0029")
        command.upgrade(alembic_config(connection), "0030")
    assert ledger.shadows.recorded(*name, NOW - timedelta(days=9)).position.tolist() == [0.5]
    assert ledger.shadows.newest_check(*name) is None
    for check in (CHECK, RecordCheck(NOW, corrections=1, explained=0, problem="differs")):
        ledger.shadows.save_check(*name, "", check)
        assert ledger.shadows.newest_check(*name) == check
    engine.dispose()
