from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.searches import Tuning
from clm_core.domain.tuning import TuneRequest, TuneResult
from clm_core.search import tuning as core
from clm_core.services import services
from tasks.progress import shown


@task(cache_policy=NO_CACHE, task_run_name="search {tuning.name}")
def search(tuning: Tuning, request: TuneRequest) -> TuneResult:
    """One task for all the trials: each is a row in the study and in the trial ledger, not a run."""
    with shown(services(), f"{tuning.model_id.replace('_', '-')}-tuning-progress") as telling:
        return core.search(telling, tuning, request)
