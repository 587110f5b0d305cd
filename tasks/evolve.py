from clm_core.domain.evolution import EvolveResult
from clm_core.domain.kinds import artifact_key
from clm_core.domain.searches import Placement
from clm_core.search.evolution import Evolution, search
from clm_core.services import services
from tasks.progress import progress_bar
from tasks.step import step


@step("evolve {evolution.name}")
def evolve(evolution: Evolution, placement: Placement) -> EvolveResult:
    """A single task for all generations: a candidate is a row in the ledger, not a run."""
    with progress_bar(services(), f"{artifact_key(evolution.model_id)}-evolution-progress") as announcing:
        return search(announcing, evolution, placement)
