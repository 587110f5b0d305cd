from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.jobs import TrainingJob
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.retraining import steps
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="fetch bars of {job.symbol} {job.timeframe}")
def fetch_bars(job: TrainingJob) -> Bars | Panel:
    return steps.fetch_bars(services(), job)
