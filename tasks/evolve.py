from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.evolution import EvolveResult
from clm_core.search import evolution as evolving
from clm_core.services import services
from tasks.progress import shown


@task(cache_policy=NO_CACHE, task_run_name="evolve {evolution.name}")
def evolve(evolution: evolving.Evolution, workers: int | None) -> EvolveResult:
    """One task for all the generations: each candidate is a row in the ledgers, not a run."""
    with shown(services(), f"{evolution.model_id.replace('_', '-')}-evolution-progress") as telling:
        return evolving.search(telling, evolution, workers)
