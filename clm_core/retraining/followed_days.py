"""Days after the judged record of a version, as the record of a further retrain would hold them."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.errors import CLMError
from clm_core.domain.versions import ModelVersion
from clm_core.evidence.sequential import DAY, daily_returns
from clm_core.market.bars import Bars, Floats
from clm_core.models.params import series_names
from clm_core.services import Services


@dataclass(frozen=True, eq=False)
class FollowedDays:
    """Complete UTC days with bars after a record, traded by the version."""

    days: NDArray[np.int64]
    """Days since 1970-01-01 UTC, ascending, shape (n_days,)."""
    growth: Floats
    """Net log return of each day, shape (n_days,)."""


def followed_days(services: Services, version: ModelVersion, first_day: int) -> FollowedDays:
    """Returns of a version's positions on the newest bars; no days for a pool, without new bars, and for a
    version whose bundle, bars or payments cannot be loaded here.

    Args:
        first_day: days since 1970-01-01 UTC of the first day, after the training.
    """
    nothing = FollowedDays(np.zeros(0, dtype=np.int64), np.zeros(0))
    if services.ledger.job(version.training_job_id).symbols:
        return nothing
    try:
        bars = services.market.bars(version.symbol, version.timeframe, closed_by=services.clock())
        first = int(np.searchsorted(bars.time, first_day * DAY))
        return _followed(services, version, bars, first) if first < len(bars) else nothing
    except CLMError:
        return nothing


def _followed(services: Services, version: ModelVersion, bars: Bars, first: int) -> FollowedDays:
    model = services.registry.load(version.model_path, version.bundle_digest)
    known = services.market.with_series(bars, series_names(version.params))
    begin = known.row_after(model.trained_on.start - timedelta(microseconds=1))
    if model.bars_needed is not None:
        begin = max(begin, first + 1 - model.bars_needed)
    positions = np.concatenate([np.zeros(begin), model.positions(known[begin:])])[first:]
    result = services.version_terms(version, bars.calendar).backtest(bars[first:], positions)
    time = bars.time[first:]
    daily = daily_returns(time, result.returns, bars.timeframe.nanoseconds)
    return FollowedDays(np.unique(time // DAY)[: len(daily)], np.log1p(daily))
