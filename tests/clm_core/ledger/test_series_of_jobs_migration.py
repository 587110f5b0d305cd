"""Revision 0022 in ledgers that hold data: jobs without series, and jobs with series."""

from collections.abc import Callable
from datetime import UTC, datetime

import records
from revisions import move
from sqlalchemy import create_engine, text

from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def test_revision_0022_gives_earlier_jobs_no_series_and_keeps_those_of_later_jobs(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    ledger = Ledger(create_engine(url))
    before = ledger.create_job(records.a_job(created_at=NOW))
    move(url, "0021", down=True)
    with create_engine(url).begin() as connection:
        columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'training_jobs' AND "
        assert connection.scalar(text(columns + "column_name = 'series'")) == 0
    upgrade(url)

    assert ledger.job(before.id) == before
    later = ledger.create_job(records.a_job(created_at=NOW, series={"funding": "a" * 64}))
    assert ledger.job(later.id).series == {"funding": "a" * 64}
    assert ledger.job(before.id).series == {}
