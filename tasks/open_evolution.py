from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.evolution import EvolveRequest
from clm_core.search import evolution
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="open evolution")
def open_evolution(request: EvolveRequest) -> evolution.Evolution:
    return evolution.open_evolution(services(), request)
