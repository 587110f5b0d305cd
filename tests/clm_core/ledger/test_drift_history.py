"""Revision 0033 in a ledger that holds data: drift kept once a day and for ever."""

from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
import records
from revisions import move
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from clm_core.domain.drift_history import DriftMeasurement
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def measured(day: int, name: str, p_value: float = 0.5) -> DriftMeasurement:
    return DriftMeasurement(day=date(2026, 3, day), name=name, score=0.7, p_value=p_value)


def test_revision_0033_keeps_the_versions_and_the_first_measurement_of_a_day(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    job = ledger.create_job(records.a_job(created_at=NOW))
    version = ledger.add_version(records.a_version(job, "v20260304_120000", created_at=NOW))
    move(url, "0032", down=True)
    move(url, "0033")
    upgrade(url)
    of = (version.model_id, version.version)
    assert ledger.drift.record(*of, [measured(4, "atr_14"), measured(4, "rsi_14")]) == 2
    assert ledger.drift.record(*of, [measured(4, "atr_14", 0.1), measured(5, "atr_14", 0.2)]) == 1
    assert ledger.drift.record(*of, []) == 0
    assert ledger.drift.since(*of, date(2026, 3, 4)) == [
        measured(4, "atr_14"),
        measured(4, "rsi_14"),
        measured(5, "atr_14", 0.2),
    ]
    assert ledger.drift.since(*of, date(2026, 3, 5)) == [measured(5, "atr_14", 0.2)]
    assert ledger.drift.small(*of, date(2026, 3, 4), date(2026, 3, 5), 0.2) == (
        3,
        [measured(5, "atr_14", 0.2)],
    )
    assert ledger.drift.small(*of, date(2026, 3, 4), date(2026, 3, 4), 0.2) == (2, [])
    with pytest.raises(IntegrityError, match="ck_drift_measurements_p_value"):
        ledger.drift.record(*of, [measured(6, "atr_14", 1.5)])
    with pytest.raises(ProgrammingError, match="permission denied"), engine.begin() as connection:
        connection.execute(text("DELETE FROM drift_measurements"))
    engine.dispose()
    move(url, "0032", down=True)
    with create_engine(url).begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM model_versions")) == 1


def test_revision_0043_keeps_the_measurements_without_the_new_statistics(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    job = ledger.create_job(records.a_job(created_at=NOW))
    version = ledger.add_version(records.a_version(job, "v20260304_120000", created_at=NOW))
    of = (version.model_id, version.version)
    ledger.drift.record(*of, [measured(4, "atr_14")])
    engine.dispose()
    move(url, "0042", down=True)
    move(url, "0043")
    ledger = Ledger(open_engine(url))
    newer = measured(5, "atr_14").model_copy(update={"psi": 0.3, "ks": 0.2})
    ledger.drift.record(*of, [newer])
    assert ledger.drift.since(*of, date(2026, 3, 4)) == [measured(4, "atr_14"), newer]
