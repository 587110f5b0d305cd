"""Which of the models that serve are due: trained too long ago, or with enough new bars since."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from clm_core.decisions.retraining import TriggerPolicy
from clm_core.domain.triggers import Observation
from clm_core.domain.vocabulary import TriggerReason


@dataclass(frozen=True)
class Serving:
    """A version that serves, as far as its freshness goes."""

    model_id: str
    trained_at: datetime
    new_bars: int
    """Bars of its market that are newer than those it was trained on."""


@dataclass(frozen=True)
class Due:
    """What to ask the door for."""

    model_id: str
    reason: TriggerReason
    observed: Observation


def due(serving: Iterable[Serving], policy: TriggerPolicy, now: datetime) -> Iterator[Due]:
    """One request a model at most: a stale one is retrained for that, whatever bars have come since."""
    for each in serving:
        age_days = (now - each.trained_at) / timedelta(days=1)
        if age_days > policy.max_age_days:
            yield Due(each.model_id, TriggerReason.PERIODIC, Observation(age_days=age_days))
        elif each.new_bars >= policy.min_new_samples:
            observed = Observation(new_samples=each.new_bars)
            yield Due(each.model_id, TriggerReason.DATA_THRESHOLD, observed)
