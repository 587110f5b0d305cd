from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.searches import Tuning
from clm_core.domain.tuning import TuneRequest
from clm_core.search import tuning
from clm_core.services import services
from tasks.asked_by import actor_of_run


@task(cache_policy=NO_CACHE, task_run_name="open study")
def open_tuning(request: TuneRequest) -> Tuning:
    return tuning.open_tuning(services(), request, actor_of_run())
