"""Strategy candidates: proposed by people, by evolution, and by the watch."""

from typing import Annotated

from fastapi import Query, Response

from clm_core.api.context import Connected
from clm_core.api.idempotency import Idempotent, json_response
from clm_core.domain.candidates import CandidateRequest, StrategyCandidate
from clm_core.domain.listings import CandidateQuery, Page


def list_candidates(clm: Connected, query: Annotated[CandidateQuery, Query()]) -> Page[StrategyCandidate]:
    """Strategies proposed for training by evolution or by a person."""
    return clm.ledger.candidates.find(query)


def post(body: CandidateRequest, clm: Connected, idempotent: Idempotent) -> Response:
    """Propose a candidate, evaluated by the next pass; the same proposal again is answered with the same
    candidate. Refused while 100 candidates wait."""
    # imported here: the libraries of models
    from clm_core.search.posted import post_candidate

    return idempotent(body, lambda: json_response(post_candidate(clm, body), status=201))
