"""Search for rule strategies; the strategies found are proposals only."""

from prefect import flow

from clm_core.domain.strategy_search import StrategySearchRequest, StrategySearchResult
from tasks.evolve_strategies import evolve_strategies as search
from tasks.open_strategy_search import open_strategy_search
from tasks.show_strategies import show_strategies


@flow(name="evolve-strategies", flow_run_name="evolve {request.subject}")
def evolve_strategies(request: StrategySearchRequest) -> StrategySearchResult:
    """Evolve rule strategies by several objectives; every candidate is a counted trial, none is promoted.

    Args:
        request: Strategies, market and rules of the search.
    """
    definition = open_strategy_search(request)
    result = search(definition, request.generations, request.placement)
    return show_strategies(result)
