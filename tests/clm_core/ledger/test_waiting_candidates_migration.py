"""Revision 0039 in ledgers that hold data: candidates recorded before await no evaluation."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from revisions import move

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.listings import CandidateQuery
from clm_core.domain.vocabulary import CandidateOrigin, ModelType
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

FORMER = "0037"


def a_candidate(**changes: Any) -> StrategyCandidate:
    values: dict[str, Any] = {
        "id": uuid4(),
        "base_strategy": "xgboost_btcusd_1h",
        "model_type": ModelType.XGBOOST,
        "symbol": "BTCUSD",
        "timeframe": "1h",
        "origin": CandidateOrigin.MUTATION,
        "created_at": datetime(2026, 3, 4, tzinfo=UTC),
    }
    return StrategyCandidate(**values | changes)


def test_revision_0039_keeps_candidates_as_evaluated_and_later_ones_may_wait(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    candidates = Ledger(engine).candidates
    before = [candidates.add(a_candidate(fitness_score=1.5)), candidates.add(a_candidate())]
    engine.dispose()
    move(url, FORMER, down=True)
    move(url, "0039")
    upgrade(url)
    assert [candidates.get(each.id) for each in before] == before
    assert candidates.waiting(10) == []
    waiting = candidates.post(a_candidate(awaits_evaluation=True), 1)
    assert candidates.waiting(10) == [waiting]
    candidates.evaluated(waiting.id, IntervalEstimate(value=1.2, low=0.3, high=2.1))
    measured = candidates.get(waiting.id)
    assert measured.fitness_interval == IntervalEstimate(value=1.2, low=0.3, high=2.1)
    assert candidates.find(CandidateQuery(awaits_evaluation=True)).items == ()
    assert measured in candidates.find(CandidateQuery(awaits_evaluation=False)).items
    engine.dispose()
