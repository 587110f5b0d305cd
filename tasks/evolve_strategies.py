from clm_core.domain.kinds import artifact_key
from clm_core.domain.searches import Placement
from clm_core.domain.strategy_search import StrategySearch, StrategySearchResult
from clm_core.search.strategy_search import search_strategies
from clm_core.services import services
from tasks.progress import progress_bar
from tasks.step import step


@step("evolve {definition.name}")
def evolve_strategies(
    definition: StrategySearch, generations: int, placement: Placement
) -> StrategySearchResult:
    """A single task for all generations: a generation is a row in the ledger, not a run."""
    with progress_bar(services(), f"{artifact_key(definition.subject)}-search-progress") as announcing:
        return search_strategies(announcing, definition, generations, placement)
