"""Candidates proposed by people, on a real PostgreSQL."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tunings import own_market, own_symbol

from clm_core.domain.candidates import CandidateRequest
from clm_core.domain.errors import (
    InvalidTrainingParams,
    ModelError,
    PoolRefused,
    TooManyWaiting,
    UnknownSeries,
)
from clm_core.domain.kinds import Kind
from clm_core.domain.listings import CandidateQuery
from clm_core.domain.pools import PoolSettings
from clm_core.domain.vocabulary import CandidateOrigin, ModelType
from clm_core.models import catalog
from clm_core.search import posted
from clm_core.search.posted import post_candidate
from clm_core.services import Services

MOMENTUM = {"model_type": "momentum", "params": {"look_back": 30, "stop_loss": 0.02}}


@pytest.fixture
def clm(services: Services, tmp_path: Path) -> Services:
    return own_market(services, tmp_path)


def a_proposal(clm: Services, **changes: Any) -> CandidateRequest:
    return CandidateRequest.model_validate(MOMENTUM | {"symbol": own_symbol(clm)} | changes)


def test_a_posted_candidate_waits_without_fitness_until_its_evaluation(clm: Services) -> None:
    candidate = post_candidate(clm, a_proposal(clm))
    assert clm.ledger.candidates.get(candidate.id) == candidate
    assert (candidate.kind, candidate.origin) == (Kind(ModelType.OTHER, "momentum"), CandidateOrigin.MANUAL)
    assert (candidate.awaits_evaluation, candidate.fitness_score, candidate.parents) == (True, None, ())
    assert candidate.base_strategy == f"momentum_{own_symbol(clm)}_1h".lower()
    assert catalog.own_params(candidate.params) == MOMENTUM["params"]
    assert catalog.stored_params(ModelType.OTHER, candidate.params, "momentum") == candidate.params


def test_the_same_proposal_is_one_candidate_however_it_is_written(clm: Services) -> None:
    first = post_candidate(clm, a_proposal(clm))
    spelled = {"model_type": "other", "plugin": "momentum", "symbol": own_symbol(clm).lower()}
    as_text = {"params": {"stop_loss": "0.020", "look_back": "30"}}
    assert post_candidate(clm, a_proposal(clm, **spelled, **as_text)) == first
    named = post_candidate(clm, a_proposal(clm, base_strategy="turtle"))
    assert (named.id != first.id, named.base_strategy) == (True, "turtle")
    listed = clm.ledger.candidates.find(CandidateQuery(symbol=own_symbol(clm))).items
    assert {each.id for each in listed} == {first.id, named.id}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"params": {"lookback": 30}}, InvalidTrainingParams, "lookback"),
        ({"params": {"stop_loss": 1.5}}, InvalidTrainingParams, "stop_loss: Input should be less than 1"),
        ({"params": {"sizing": {"target": 1}}}, InvalidTrainingParams, r"sizing\.target"),
        ({"symbol": "NOSUCH"}, UnknownSeries, "NOSUCH"),
        ({"model_type": "other", "plugin": "astrology"}, ModelError, "astrology"),
        ({"model_type": "ensemble", "params": {}}, ModelError, "names no parameter to tune"),
        ({"symbol": "CRYPTO2"}, PoolRefused, "CRYPTO2 is a pool"),
    ],
    ids=["unknown", "out of range", "section", "market", "kind", "composite", "pool"],
)
def test_a_proposal_that_no_search_can_evaluate_is_refused_by_name(
    clm: Services, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    pools = {"CRYPTO2": PoolSettings(symbols=("BTCUSD", "ETHUSD"))}
    settings = clm.settings.model_copy(update={"pools": pools})
    object.__setattr__(clm, "settings", settings)
    with pytest.raises(error, match=message):
        post_candidate(clm, a_proposal(clm, **changes))
    assert clm.ledger.candidates.find(CandidateQuery(symbol=own_symbol(clm))).items == ()


@pytest.mark.parametrize("name", ["", "a\nb", "\0", "x" * 101])
def test_the_name_of_a_strategy_is_a_short_line_of_text(clm: Services, name: str) -> None:
    with pytest.raises(ValidationError, match="base_strategy"):
        a_proposal(clm, base_strategy=name)


def test_no_more_than_the_stated_number_of_candidates_wait(
    clm: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = post_candidate(clm, a_proposal(clm))
    waiting = len(clm.ledger.candidates.waiting(1000))
    monkeypatch.setattr(posted, "MAX_WAITING", waiting)
    with pytest.raises(TooManyWaiting, match=f"{waiting} candidates wait for their evaluation"):
        post_candidate(clm, a_proposal(clm, params={"look_back": 31}))
    assert post_candidate(clm, a_proposal(clm)) == first, "recorded before"
    clm.ledger.candidates.evaluated(first.id, None, "too few trades")
    assert post_candidate(clm, a_proposal(clm, params={"look_back": 31})).awaits_evaluation


def test_an_evaluation_is_recorded_once(clm: Services) -> None:
    candidate = post_candidate(clm, a_proposal(clm))
    clm.ledger.candidates.evaluated(candidate.id, 0.7)
    clm.ledger.candidates.evaluated(candidate.id, None, "again")
    clm.ledger.candidates.evaluated(uuid.uuid4(), 1.0)
    measured = clm.ledger.candidates.get(candidate.id)
    assert (measured.fitness_score, measured.failure_cause, measured.awaits_evaluation) == (0.7, None, False)
