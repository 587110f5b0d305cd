"""Revision 0032 in ledgers that hold data: standings of production versions."""

from collections.abc import Callable

import records
from alembic import command
from sqlalchemy import create_engine, text

from clm_core.ledger.migrations import alembic_config, upgrade
from clm_core.ledger.store import Ledger

FORMER = "0031"
TABLE = text("SELECT to_regclass('production_standings')")


def test_revision_0032_keeps_the_records_and_the_former_revision_loses_the_standings_alone(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = create_engine(url)
    ledger = Ledger(engine)
    job = ledger.create_job(records.a_job())
    version = ledger.add_version(records.a_version(job))
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), FORMER)
        assert connection.scalar(TABLE) is None
        command.upgrade(alembic_config(connection), "0032")
        assert connection.scalar(TABLE) is not None
    assert ledger.version(version.model_id, version.version) == version
    assert ledger.standings.newest() == {}
    engine.dispose()
