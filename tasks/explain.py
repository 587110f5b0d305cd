from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core import retraining
from clm_core.domain.evaluations import Verdict
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.market.bars import Bars
from clm_core.services import services
from clm_core.training import Trained


@task(cache_policy=NO_CACHE, task_run_name="explain {version.model_id} {version.version}")
def explain(
    job: TrainingJob,
    version: ModelVersion,
    bars: Bars,
    trained: Trained,
    tested: retraining.Tested,
    verdict: Verdict,
) -> retraining.Report:
    return retraining.explain(services(), job, version, bars, trained, tested, verdict)
