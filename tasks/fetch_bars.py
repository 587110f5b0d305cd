import logging

from clm_core.domain.jobs import TrainingJob
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.retraining import steps
from clm_core.retraining.bars_age import ages_of
from clm_core.services import services
from tasks.run_page import note
from tasks.step import step


@step("fetch bars of {job.symbol} {job.timeframe}")
def fetch_bars(job: TrainingJob) -> Bars | Panel:
    clm = services()
    bars = steps.fetch_bars(clm, job)
    for age in ages_of(bars, clm.clock(), clm.settings.watch.stale_bars):
        if age.is_stale:
            note(logging.WARNING, "Old bars: %s.", age.sentence)
    return bars
