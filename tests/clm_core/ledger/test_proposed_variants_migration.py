"""Revision 0040 in ledgers that hold data: jobs may name a candidate, versions may have variants."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import records
from revisions import move

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.errors import NotFound
from clm_core.domain.vocabulary import CandidateOrigin, ModelType
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

FORMER = "0039"
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def test_revision_0040_keeps_the_jobs_and_lets_later_ones_name_a_candidate(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    before = ledger.create_job(records.a_job(created_at=NOW))
    candidate = ledger.candidates.add(
        StrategyCandidate(
            id=uuid4(),
            base_strategy="xgboost_btcusd_1h",
            model_type=ModelType.XGBOOST,
            symbol="BTCUSD",
            timeframe="1h",
            origin=CandidateOrigin.MUTATION,
            created_at=NOW,
        )
    )
    engine.dispose()
    move(url, FORMER, down=True)
    upgrade(url)
    assert (ledger.job(before.id), ledger.candidates.get(candidate.id)) == (before, candidate)
    later = ledger.create_job(records.a_job(created_at=NOW, candidate_id=candidate.id))
    assert ledger.job(later.id).candidate_id == candidate.id
    with pytest.raises(NotFound, match="candidate_id"):
        ledger.create_job(records.a_job(created_at=NOW, candidate_id=uuid4()))
    assert ledger.variants.unanswered() == []
    engine.dispose()
