from clm_core.domain.evaluations import Verdict
from clm_core.domain.jobs import Lease
from clm_core.domain.versions import ModelVersion
from clm_core.retraining import steps
from clm_core.retraining.results import BacktestEvaluation
from clm_core.services import services
from tasks.step import step


@step("judge {version.model_id} {version.version}")
def judge(lease: Lease, version: ModelVersion, evaluation: BacktestEvaluation) -> Verdict:
    """Never cached: policy, trials and champion are read at the moment of the verdict."""
    return steps.judge(services(), lease, version, evaluation)
