"""A search for rule strategies, step by step."""

from clm_core.domain.strategy_search import StrategySearchRequest, StrategySearchResult
from clm_core.platform.prefect_runs import SEARCH_TAG
from clm_core.search.strategy_report import headline
from flows.sequences.ended import Ended
from tasks.evolve_strategies import evolve_strategies as search
from tasks.open_strategy_search import open_strategy_search
from tasks.show_strategies import show_strategies
from tasks.tag_run import tag_run


def evolve_strategies(request: StrategySearchRequest) -> Ended[StrategySearchResult]:
    tag_run(SEARCH_TAG, request.subject, *(each.value for each in request.families), "evolve")
    definition = open_strategy_search(request)
    result = search(definition, request.generations, request.placement)
    shown = show_strategies(result)
    return Ended(headline(shown), shown)
