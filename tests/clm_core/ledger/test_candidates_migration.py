"""Revision 0026 in ledgers that hold data: candidates recorded before have no interval."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from alembic import command
from sqlalchemy import create_engine, text

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.vocabulary import CandidateOrigin, ModelType
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import alembic_config, upgrade
from clm_core.ledger.store import Ledger

BEFORE = StrategyCandidate(
    id=uuid.uuid4(),
    base_strategy="xgboost_btcusd_1h",
    model_type=ModelType.XGBOOST,
    symbol="BTCUSD",
    timeframe="1h",
    origin=CandidateOrigin.MUTATION,
    fitness_score=1.5,
    created_at=datetime(2026, 3, 4, tzinfo=UTC),
)


def test_revision_0026_keeps_candidates_without_an_interval_and_stores_it_from_then_on(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    candidates = Ledger(engine).candidates
    candidates.add(BEFORE)
    with create_engine(url).begin() as connection:
        command.downgrade(alembic_config(connection), "0025")
    with create_engine(url).begin() as connection:
        held = connection.scalar(text("SELECT fitness_score FROM strategy_candidates"))
        command.upgrade(alembic_config(connection), "0026")
    assert held == 1.5
    engine.dispose()
    upgrade(url)
    assert candidates.get(BEFORE.id) == BEFORE
    ends = {"id": uuid.uuid4(), "fitness_low": 0.3, "fitness_high": 2.7}
    after = candidates.add(BEFORE.model_copy(update=ends))
    assert candidates.get(after.id) == after
    engine.dispose()
