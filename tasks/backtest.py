from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.retraining import steps
from clm_core.retraining.results import BacktestEvaluation
from clm_core.retraining.training import TrainingResult
from clm_core.services import services
from tasks.step import step


@step("backtest out of sample")
def backtest(
    lease: Lease, job: TrainingJob, bars: Bars | Panel, trained: TrainingResult
) -> BacktestEvaluation:
    return steps.evaluate_out_of_sample(services(), lease, job, bars, trained)
