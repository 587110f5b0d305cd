"""Revision 0024 in ledgers that hold data: versions without a recipe, and versions with one."""

from collections.abc import Callable
from datetime import UTC, datetime

import records
from revisions import move
from sqlalchemy import create_engine, text

from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
DIGEST = "e" * 64


def test_revision_0024_leaves_earlier_versions_without_a_recipe_and_finds_later_ones_by_theirs(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    ledger = Ledger(create_engine(url))
    job = ledger.create_job(records.a_job(created_at=NOW))
    before = ledger.add_version(records.a_version(job))
    move(url, "0023", down=True)
    with create_engine(url).begin() as connection:
        columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'model_versions' AND "
        assert connection.scalar(text(columns + "column_name = 'recipe_digest'")) == 0
    upgrade(url)

    assert ledger.version(job.model_id, before.version) == before
    assert before.recipe_digest is None
    later = ledger.add_version(records.a_version(job, "v20251205_143022", recipe_digest=DIGEST))
    assert ledger.versions(recipe_digest=DIGEST) == [later]
