"""Walk-forward plan of a training: the installation's plan with the days and the grid of a request."""

from clm_core.backtest.walk_forward import DAY_NS
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.models import catalog


def plan_of(
    installation: WalkForwardPlan, training: RetrainRequest | TrainingJob, bars: Bars | Panel
) -> WalkForwardPlan:
    """Plan of a request or job.

    Args:
        bars: loaded bars: fewer days than requested where the series is shorter.

    Raises:
        MissingExtra: the library of the kind of model is not installed.
        ModelError: the model type has no implementation, or the plug-in cannot be used.
    """
    days = (int(bars.time[-1]) - int(bars.time[0]) + bars.timeframe.nanoseconds) / DAY_NS
    max_folds = catalog.find_kind(*training.kind).max_folds
    return installation.for_request(training.dataset_span_days, days, max_folds)
