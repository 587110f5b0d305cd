from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core import retraining
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="open job")
def open_job(request: RetrainRequest) -> TrainingJob:
    return retraining.open_job(services(), request)
