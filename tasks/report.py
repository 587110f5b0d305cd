from clm_core.domain.evaluations import Verdict
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.retraining import steps
from clm_core.retraining.results import BacktestEvaluation, TearSheetFiles
from clm_core.retraining.training import TrainingResult
from clm_core.services import services
from tasks.step import step


@step("report {version.model_id} {version.version}")
def report(
    job: TrainingJob,
    version: ModelVersion,
    bars: Bars | Panel,
    trained: TrainingResult,
    evaluation: BacktestEvaluation,
    verdict: Verdict,
) -> TearSheetFiles:
    return steps.report(services(), job, version, bars, trained, evaluation, verdict)
