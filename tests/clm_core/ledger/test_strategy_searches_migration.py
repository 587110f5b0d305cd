"""Revision 0041 in ledgers that hold data: searches for strategies beside the studies of before."""

from collections.abc import Callable

import numpy as np
import pytest
from revisions import move
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

FORMER = "0040"
STUDY = "INSERT INTO tunings (name, model_id, definition, created_at) VALUES ('s', 'm', '{}', now())"
SEARCH = (
    "INSERT INTO strategy_searches (name, symbol, timeframe, definition, created_at) "
    "VALUES ('r', 'BTCUSD', '1h', '{}', now())"
)
BATCH = (
    "INSERT INTO strategy_trials (search, batch, trials, genes, scores, highest, lowest, at) "
    "VALUES (:search, :batch, 1, :genes, :scores, :draws, :draws, now())"
)


def test_revision_0041_keeps_the_studies_and_adds_searches_that_only_grow(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    move(url, FORMER, down=True)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text(STUDY))
    engine.dispose()
    move(url, "0041")
    engine = open_engine(url)
    values = {
        "genes": np.array([0.02, 20.0]).tobytes(),
        "scores": np.array([1.5, -0.1, 0.4]).tobytes(),
        "draws": np.zeros(2048, np.float32).tobytes(),
    }
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tunings")) == 1
        connection.execute(text(SEARCH))
        connection.execute(text(BATCH), {"search": "r", "batch": 0, **values})
    [batch] = Ledger(engine).strategy_searches.batches("r", 2)
    assert (batch.genes.tolist(), batch.scores.tolist()) == ([[0.02, 20.0]], [[1.5, -0.1, 0.4]])
    for change in ("UPDATE strategy_trials SET trials = 2", "DELETE FROM strategy_searches"):
        with pytest.raises(ProgrammingError, match="permission denied"), engine.begin() as connection:
            connection.execute(text(change))
    engine.dispose()
