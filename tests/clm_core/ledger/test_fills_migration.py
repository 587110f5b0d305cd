"""Revision 0034 in ledgers that hold data: fills of traders."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import records
from revisions import move
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from clm_core.domain.errors import AlreadyExists
from clm_core.domain.fills import RecordedFill
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

FORMER = "0033"
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def test_revision_0034_keeps_the_records_and_records_fills_once_and_for_ever(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    job = ledger.create_job(records.a_job())
    version = ledger.add_version(records.a_version(job))
    move(url, FORMER, down=True)
    move(url, "0034")
    fill = RecordedFill(
        id="a1",
        model_id=version.model_id,
        version=version.version,
        symbol="BTCUSD",
        time=NOW,
        change=0.5,
        price=100.0,
        reported_by="trader",
        at=NOW,
    )
    other = fill.model_copy(update={"id": "a2", "fee_bps": 4.5, "resting": True})
    assert ledger.fills.record([fill, other]) == 2
    again = fill.model_copy(update={"reported_by": "another"})
    third = fill.model_copy(update={"id": "a3"})
    assert ledger.fills.record([again, third, third]) == 1
    dearer = fill.model_copy(update={"id": "a4", "price": 101.0})
    with pytest.raises(AlreadyExists, match=r"Fill 2 \(a3\): .* same id with other contents"):
        ledger.fills.record([dearer, third.model_copy(update={"price": 101.0})])
    assert ledger.fills.of_model(version.model_id) == [fill, other, third]
    for change in ("DELETE FROM fills", "UPDATE fills SET price = 1"):
        with pytest.raises(ProgrammingError, match="permission denied"), engine.begin() as connection:
            connection.execute(text(change))
    with pytest.raises(IntegrityError, match="ck_fills_change"):
        ledger.fills.record([fill.model_copy(update={"id": "a5", "change": 3.0})])
    engine.dispose()
    move(url, FORMER, down=True)
    assert ledger.version(version.model_id, version.version) == version
