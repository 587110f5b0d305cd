from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.strategy_search import StrategySearch, StrategySearchRequest
from clm_core.search import strategy_search
from clm_core.services import services
from tasks.asked_by import actor_of_run


@task(cache_policy=NO_CACHE, task_run_name="open search for strategies")
def open_strategy_search(request: StrategySearchRequest) -> StrategySearch:
    return strategy_search.open_strategy_search(services(), request, actor_of_run())
