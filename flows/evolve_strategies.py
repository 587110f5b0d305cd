"""Search for rule strategies; the strategies found are proposals only."""

from prefect import State, flow

from clm_core.domain.strategy_search import StrategySearchRequest, StrategySearchResult
from flows.sequences.evolve_strategies import evolve_strategies as sequence


@flow(name="evolve-strategies", flow_run_name="evolve {request.subject}")
def evolve_strategies(request: StrategySearchRequest) -> State[StrategySearchResult]:
    """Evolve rule strategies by several objectives; every candidate is a counted trial, none is promoted.

    Args:
        request: Strategies, market and rules of the search.
    """
    return sequence(request).state()
