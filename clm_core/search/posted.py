"""Candidates proposed by people, by REST or in the terminal: checked, then recorded for evaluation."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

from clm_core.domain.candidates import MAX_WAITING, CandidateRequest, StrategyCandidate
from clm_core.domain.costs import Costs
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.kinds import Kind
from clm_core.domain.searches import SearchRequest
from clm_core.domain.vocabulary import CandidateOrigin
from clm_core.models import catalog
from clm_core.search.request import require_one_market
from clm_core.services import Services

NAMESPACE = UUID("5f1a3f0e-64e3-4c1b-9a43-2f6a0f3f6c1d")


def post_candidate(services: Services, request: CandidateRequest) -> StrategyCandidate:
    """Record a proposed candidate, without fitness until its evaluation; the same proposal is recorded once.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
        ModelError: the kind of model is not installed, or no search can evaluate it.
        UnknownSeries: no source has bars of the market.
        PoolRefused: the symbol names a pool.
        TooManyWaiting: `MAX_WAITING` candidates wait already.
    """
    kind = request.kind
    params = explicit_params(kind, request.params, services.settings.execution.rules)
    require_one_market(services, request.symbol)
    series = services.market.newest(request.symbol, request.timeframe)
    market = {"symbol": series.symbol, "timeframe": series.timeframe.value}
    content = {
        "base_strategy": request.base_strategy or request.model_copy(update=market).model_id,
        "model_type": kind.model_type,
        "plugin": kind.plugin,
        **market,
        "params": params,
    }
    candidate = StrategyCandidate(
        id=uuid5(NAMESPACE, json.dumps(content, sort_keys=True)),
        **content,
        origin=CandidateOrigin.MANUAL,
        awaits_evaluation=True,
        created_at=services.clock(),
    )
    return services.ledger.candidates.post(candidate, MAX_WAITING)


def explicit_params(kind: Kind, params: Mapping[str, Any], execution: ExecutionRules) -> dict[str, Any]:
    """Parameters as stored: with typed values, the markers of this release, sizing and execution.

    Args:
        execution: rules of the installation, for rules missing in the parameters.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
        ModelError: the kind of model is not installed, or no search can evaluate it.
    """
    # refuses a kind without parameters to search, such as an ensemble
    catalog.search_space(*kind)
    # the costs are defaults of parameters that the request does not name
    described = catalog.recipe(kind.model_type, params, Costs(), kind.plugin).describe()
    stored = catalog.requested_params(kind.model_type, params, kind.plugin, execution)
    own = catalog.own_params(stored)
    return {name: described[name] if name in own else value for name, value in stored.items()}


def search_request(candidate: StrategyCandidate) -> SearchRequest:
    """Request for the search to evaluate a candidate, with the defaults of `clm evolve`."""
    return SearchRequest(
        model_type=candidate.model_type,
        plugin=candidate.plugin,
        symbol=candidate.symbol,
        timeframe=candidate.timeframe,
        training_params=candidate.params,
    )
