"""Revision 0029 in ledgers that hold data: recoveries beside alerts."""

from collections.abc import Callable
from datetime import UTC, datetime

from alembic import command
from sqlalchemy import create_engine, text

from clm_core.domain.alerts import Alert, AlertKind
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.migrations import alembic_config, upgrade

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
ALERT = "INSERT INTO alerts (kind, subject, message, at) VALUES ('audit_broken', 'audit', 'look', now())"


def test_revision_0029_keeps_the_alerts_and_the_former_revision_loses_the_recoveries_alone(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0028")
        connection.execute(text(ALERT))
        command.upgrade(alembic_config(connection), "0029")
    store = AlertStore(engine)
    [kept] = store.lasting()
    assert (kept.kind, kept.recovers) == (AlertKind.AUDIT_BROKEN, None)
    assert not store.record(Alert(kind=kept.kind, subject=kept.subject, message="again", at=NOW))
    assert store.end(kept.kind, kept.subject, NOW)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM alerts WHERE recovers IS NOT NULL")) == 1
        command.downgrade(alembic_config(connection), "0028")
        assert connection.scalar(text("SELECT count(*) FROM alerts")) == 1
    engine.dispose()
