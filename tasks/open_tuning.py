from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.backtest.search import Tuning
from clm_core.domain.tuning import TuneRequest
from clm_core.services import services
from clm_core.tuning import search


@task(cache_policy=NO_CACHE, task_run_name="open study")
def open_tuning(request: TuneRequest) -> Tuning:
    return search.open_tuning(services(), request)
