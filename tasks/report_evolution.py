from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.evolution import EvolveResult
from clm_core.search.evolution import Evolution
from clm_core.search.evolution_report import write_report
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="report {evolution.name}")
def report_evolution(evolution: Evolution, result: EvolveResult) -> EvolveResult:
    return write_report(services().reports, evolution, result)
