from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.retraining import steps
from clm_core.retraining.training import TrainingResult
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="register {job.model_id}")
def register(lease: Lease, job: TrainingJob, bars: Bars | Panel, trained: TrainingResult) -> ModelVersion:
    return steps.register(services(), lease, job, bars, trained)
