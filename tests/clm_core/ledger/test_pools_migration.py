"""Revision 0023 in ledgers that hold data: jobs of pools, and shadow positions by symbol."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
import records
from revisions import move
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from trials import count_trial_of

from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
BAR = np.array([1_772_625_600_000_000_000])
POOL = {"symbol": "CRYPTO2", "symbols": ("BTCUSDT", "ETHUSDT"), "data_snapshots": ("5a" * 32, "6b" * 32)}


def test_revision_0023_keeps_jobs_and_shadow_positions_of_single_markets(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    ledger = Ledger(create_engine(url))
    job = ledger.create_job(records.a_job(created_at=NOW))
    version = ledger.add_version(records.a_version(job, "v20260304_120000", created_at=NOW))
    count_trial_of(ledger, version)
    ledger.shadows.record(version.model_id, version.version, BAR, np.array([0.5]), NOW)
    move(url, "0022", down=True)
    with create_engine(url).begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM shadow_positions")) == 1
    upgrade(url)
    ledger = Ledger(create_engine(url))
    assert ledger.job(job.id) == job
    assert job.symbols == ()
    first = datetime(2026, 1, 1, tzinfo=UTC)
    assert ledger.shadows.recorded(version.model_id, version.version, first).position.tolist() == [0.5]


def test_a_job_of_a_pool_is_stored_with_its_members_and_goes_with_a_downgrade_as_one_market(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    ledger = Ledger(create_engine(url))
    job = ledger.create_job(records.a_job(created_at=NOW, **POOL))
    assert ledger.job(job.id) == job
    assert ledger.pool_members("CRYPTO2") == ("BTCUSDT", "ETHUSDT")
    assert ledger.pool_members("BTCUSDT") == ()
    assert ledger.pool_names() == {"CRYPTO2"}
    version = ledger.add_version(records.a_version(job, "v20260304_120000", created_at=NOW))
    for symbol, position in zip(job.symbols, (0.25, -0.75), strict=True):
        ledger.shadows.record(version.model_id, version.version, BAR, np.array([position]), NOW, symbol)
    first = datetime(2026, 1, 1, tzinfo=UTC)
    recorded = [
        ledger.shadows.recorded(version.model_id, version.version, first, symbol).position.tolist()
        for symbol in (*job.symbols, "")
    ]
    assert recorded == [[0.25], [-0.75], []]
    move(url, "0022", down=True)
    with create_engine(url).begin() as connection:
        assert connection.scalar(text("SELECT symbol FROM training_jobs")) == "CRYPTO2"
        assert connection.scalar(text("SELECT count(*) FROM shadow_positions")) == 0


def test_a_job_with_a_member_without_a_snapshot_is_refused_by_the_table(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    with pytest.raises(IntegrityError, match="ck_training_jobs_members"):
        Ledger(create_engine(url)).create_job(
            records.a_job(created_at=NOW, **POOL | {"data_snapshots": ("5a" * 32,)})
        )
