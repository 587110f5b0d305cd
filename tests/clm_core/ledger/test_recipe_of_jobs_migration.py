"""Revision 0037 in ledgers that hold data: the origin of a job's recipe."""

from collections.abc import Callable
from datetime import UTC, datetime

import records
from revisions import move

from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

FORMER = "0036"
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def test_revision_0037_keeps_the_jobs_and_records_where_later_recipes_come_from(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    before = ledger.create_job(records.a_job(created_at=NOW))
    engine.dispose()
    move(url, FORMER, down=True)
    move(url, "0037")
    upgrade(url)
    assert ledger.job(before.id) == before
    origin = "v20260301_120000: in production"
    later = ledger.create_job(records.a_job(created_at=NOW, recipe_from=origin))
    assert (ledger.job(later.id).recipe_from, ledger.job(before.id).recipe_from) == (origin, None)
    engine.dispose()
