from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.kinds import artifact_key
from clm_core.domain.searches import Placement
from clm_core.domain.strategy_search import StrategySearch, StrategySearchResult
from clm_core.search.strategy_search import search_strategies
from clm_core.services import services
from tasks.progress import progress_bar


@task(cache_policy=NO_CACHE, task_run_name="evolve {definition.name}")
def evolve_strategies(
    definition: StrategySearch, generations: int, placement: Placement
) -> StrategySearchResult:
    """A single task for all generations: a generation is a row in the ledger, not a run."""
    with progress_bar(services(), f"{artifact_key(definition.subject)}-search-progress") as announcing:
        return search_strategies(announcing, definition, generations, placement)
