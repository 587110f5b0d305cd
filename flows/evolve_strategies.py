"""Search for rule strategies; the strategies found are proposals only."""

from prefect import State, flow
from prefect.states import Completed

from clm_core.domain.strategy_search import StrategySearchRequest, StrategySearchResult
from clm_core.platform.prefect_runs import SEARCH_TAG
from clm_core.search.strategy_report import headline
from tasks.evolve_strategies import evolve_strategies as search
from tasks.open_strategy_search import open_strategy_search
from tasks.show_strategies import show_strategies
from tasks.tag_run import tag_run


@flow(name="evolve-strategies", flow_run_name="evolve {request.subject}")
def evolve_strategies(request: StrategySearchRequest) -> State[StrategySearchResult]:
    """Evolve rule strategies by several objectives; every candidate is a counted trial, none is promoted.

    Args:
        request: Strategies, market and rules of the search.
    """
    tag_run(SEARCH_TAG, request.subject, *(each.value for each in request.families), "evolve")
    definition = open_strategy_search(request)
    result = search(definition, request.generations, request.placement)
    shown = show_strategies(result)
    return Completed(message=headline(shown), data=shown)
