"""Revision 0035 in ledgers that hold data: values of continuous learning."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import records
from revisions import move

from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.paper import LearningValue
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

FORMER = "0034"
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def test_revision_0035_keeps_the_records_and_the_newest_value_of_each_model(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    job = ledger.create_job(records.a_job())
    version = ledger.add_version(records.a_version(job))
    move(url, FORMER, down=True)
    move(url, "0035")
    assert ledger.learning_values.newest() == {}
    value = LearningValue(
        model_id=version.model_id,
        frozen=version.version,
        production=None,
        at=NOW,
        since=NOW - timedelta(days=9),
        bars=9,
        production_return=0.1,
        frozen_return=-0.1,
        sharpe_difference=IntervalEstimate(value=0.1, low=-1.0 / 3.0, high=2.5),
        reason="too few bars",
    )
    newer = value.model_copy(update={"at": NOW + timedelta(hours=1), "bars": 10})
    for each in (value, newer, value):
        ledger.learning_values.record(each)
    assert ledger.learning_values.newest() == {version.model_id: newer}
    assert ledger.learning_values.newest("another_btcusd_1h") == {}
    engine.dispose()
    move(url, FORMER, down=True)
    assert ledger.version(version.model_id, version.version) == version
