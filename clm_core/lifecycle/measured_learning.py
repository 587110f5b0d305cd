"""Figures of continuous learning: returns of production and of the frozen first champion on the same bars."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from clm_core.decisions.learning_value import measure_learning
from clm_core.domain.costs import Costs
from clm_core.domain.paper import LearningValue
from clm_core.domain.promotions import Promotion
from clm_core.domain.versions import ModelVersion
from clm_core.market.bars import Bars
from clm_core.retraining.measured_costs import costs_of_comparisons
from clm_core.retraining.shadow_tracks import (
    ShadowRun,
    Stint,
    markets_since,
    moment,
    periods_of,
    recipe_track,
    run_of,
    stint_of,
    traded,
)
from clm_core.services import Services


def measured(services: Services, value: LearningValue, changes: Sequence[Promotion]) -> LearningValue:
    """The value with the figures of the bars since the first champion was replaced."""
    frozen = services.ledger.version(value.model_id, value.frozen)
    served = [change.to_version for change in changes if change.to_version is not None]
    newest = services.ledger.version(value.model_id, served[-1]) if served else frozen
    markets = markets_since(services, newest, changes[0].at)
    costs = costs_of_comparisons(services, value.model_id, markets)
    theirs = run_of(services, [Stint(frozen, changes[0].at)], markets, costs)
    runs = list(_production_runs(services, frozen, changes, markets, costs))
    if theirs is None or not runs:
        return value.model_copy(update={"reason": "no bar has closed since"})
    returns = np.concatenate([run.returns for run in runs])
    counted = np.concatenate([run.earned for run in runs]) & theirs.earned
    axis = theirs.axis
    figures = measure_learning(
        axis.time, axis.timeframe.nanoseconds, returns, theirs.returns, counted, axis.periods_per_year
    )
    if figures is None:
        reason = (
            f"no bar counts yet: a position of production or of {value.frozen} was missing or recorded late "
            "on every bar (`clm shadow` says why)"
        )
        return value.model_copy(update={"reason": reason})
    is_whole = figures.return_difference is not None and figures.sharpe_difference is not None
    return value.model_copy(
        update={
            "until": moment(int(axis.time[counted][-1])),
            "bars": int(counted.sum()),
            "production_return": figures.production_return,
            "frozen_return": figures.frozen_return,
            "return_difference": figures.return_difference,
            "sharpe_difference": figures.sharpe_difference,
            "reason": None if is_whole else "too few bars, or equal returns, for every difference",
        }
    )


def _production_runs(
    services: Services,
    frozen: ModelVersion,
    changes: Sequence[Promotion],
    markets: Sequence[Bars],
    costs: Mapping[str, Costs],
) -> Iterator[ShadowRun]:
    """Returns of production in time order, a run for successive versions under the same execution rules."""
    stints = [stint_of(services, change) for change in changes]
    for period in periods_of(services, stints, frozen):
        tracks = [recipe_track(services, period.stints, period.within(bars)) for bars in markets]
        run = traded(services, period.version, tracks, costs)
        if run is not None:
            yield run
