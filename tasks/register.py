from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.retraining import steps
from clm_core.retraining.training import TrainingResult
from clm_core.services import services
from tasks.step import step


@step("register {job.model_id}")
def register(lease: Lease, job: TrainingJob, bars: Bars | Panel, trained: TrainingResult) -> ModelVersion:
    return steps.register(services(), lease, job, bars, trained)
