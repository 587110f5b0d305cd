from clm_core.domain.strategy_search import StrategySearch, StrategySearchRequest
from clm_core.search import strategy_search
from clm_core.services import services
from tasks.asked_by import actor_of_run
from tasks.step import step


@step("open search for strategies")
def open_strategy_search(request: StrategySearchRequest) -> StrategySearch:
    return strategy_search.open_strategy_search(services(), request, actor_of_run())
