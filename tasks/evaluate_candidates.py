from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.lifecycle import candidates
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="evaluate candidates")
def evaluate_candidates() -> candidates.CandidateReport:
    return candidates.run(services())
