import logging

from clm_core.domain.jobs import TrainingJob
from clm_core.domain.kinds import artifact_key
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.retraining import steps
from clm_core.retraining.training import TrainingResult
from clm_core.retraining.window import window_of_bars
from clm_core.services import services
from tasks.progress import progress_bar
from tasks.run_page import note
from tasks.step import step


@step("train {job.model_id} walk-forward")
def train(job: TrainingJob, bars: Bars | Panel) -> TrainingResult:
    axis = bars.index_bars() if isinstance(bars, Panel) else bars
    if window := window_of_bars(services(), job, axis):
        note(logging.INFO, window.sentence)
    with progress_bar(services(), f"{artifact_key(job.model_id)}-progress") as with_progress:
        return steps.train(with_progress, job, bars)
