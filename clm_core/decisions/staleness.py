"""Retrains due by age or by the number of new bars, and the age of the newest bar of a market."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from clm_core.domain.bar_age import BarAge
from clm_core.domain.trigger_policy import TriggerPolicy
from clm_core.domain.triggers import Observation
from clm_core.domain.vocabulary import TriggerReason
from clm_core.market.newest_bars import NewestBar

LEAST_LATE = timedelta(hours=1)
"""Least length of the late bars of a stale market: of short bars, a late fetch is no illness."""


@dataclass(frozen=True)
class Freshness:
    """Age of a production version, in time and in bars."""

    model_id: str
    trained_at: datetime
    new_bars: int
    """Number of bars of the market after the last bar of the training."""
    tried_at: datetime | None = None
    """Start of the newest retrain since the training, promoted or not; None: none."""
    unpromoted: int = 0
    """Retrains since the training that ended and were not promoted."""


@dataclass(frozen=True)
class DueRetrain:
    """A retrain to request from the intake."""

    model_id: str
    reason: TriggerReason
    observed: Observation


def due_retrains(versions: Iterable[Freshness], policy: TriggerPolicy, now: datetime) -> Iterator[DueRetrain]:
    """At most one retrain per model: staleness takes precedence over new bars.

    The watch adds a retrain only where the schedule made none: a model is stale when no retrain began for
    `max_age_days`, whether the last one was promoted or not, and each retrain without a promotion doubles
    the number of new bars to wait for.
    """
    for each in versions:
        age_days = (now - (each.tried_at or each.trained_at)) / timedelta(days=1)
        if age_days > policy.max_age_days:
            yield DueRetrain(each.model_id, TriggerReason.PERIODIC, Observation(age_days=age_days))
        elif each.new_bars >= policy.new_samples_needed(each.unpromoted):
            observed = Observation(new_samples=each.new_bars)
            yield DueRetrain(each.model_id, TriggerReason.DATA_THRESHOLD, observed)


def age_of(newest: NewestBar, now: datetime, stale_bars: int) -> BarAge:
    """Age of the newest bar of a market.

    The market is stale from `stale_bars` late bars on that make an hour at least. Times at which the calendar
    is closed, as weekends of currencies, make no bar late.

    Args:
        stale_bars: `watch.stale_bars` of the settings.
    """
    late = newest.late_bars(now)
    return BarAge(
        symbol=newest.symbol,
        timeframe=newest.timeframe.value,
        newest_close=newest.closed,
        at=now,
        late_bars=late,
        is_stale=late >= stale_bars and late * timedelta(seconds=newest.timeframe.seconds) >= LEAST_LATE,
    )
